//! Arguments and environment on their way from one program to the next.

use alloc::vec::Vec;

use crate::errno::{Errno, Result};
use crate::mm::uaccess::{self, UserPtr};

/// Longest single string, its NUL included (`MAX_ARG_STRLEN`).
const MAX_STRING: usize = 128 << 10;

/// All strings of one array together, their NULs and pointers included: a quarter of the usual stack limit, as on Linux.
const MAX_TOTAL: usize = 2 << 20;

/// A list of strings, stored one after the other with a NUL after each.
#[derive(Default)]
pub struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    /// Reads a NULL-terminated array of user pointers. A NULL array is an empty one. `EFAULT`, `E2BIG`, `ENOMEM`.
    pub fn from_user(array: usize) -> Result<Strings> {
        let mut strings = Strings::default();
        if array == 0 {
            return Ok(strings);
        }
        let array = UserPtr::<usize>::new(array);
        loop {
            let address = array.at(strings.count).read()?;
            if address == 0 {
                return Ok(strings);
            }
            let string = uaccess::read_string(address, MAX_STRING, Errno::E2BIG)?;
            strings.push(&string)?;
        }
    }

    /// Adds a string, which holds no NUL. `E2BIG`, `ENOMEM`.
    pub fn push(&mut self, string: &[u8]) -> Result {
        let total = self.bytes.len() + string.len() + 1 + (self.count + 1) * size_of::<usize>();
        if total > MAX_TOTAL {
            return Err(Errno::E2BIG);
        }
        self.bytes.try_reserve(string.len() + 1)?;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        self.count += 1;
        Ok(())
    }

    /// The argument list of a script's interpreter: its name, its argument, the script's path, and the script's arguments.
    pub fn for_interpreter(
        self,
        interpreter: &[u8],
        argument: Option<&[u8]>,
        script: &[u8],
    ) -> Result<Strings> {
        let mut strings = Strings::default();
        strings.push(interpreter)?;
        if let Some(argument) = argument {
            strings.push(argument)?;
        }
        strings.push(script)?;
        for string in self.iter().skip(1) {
            strings.push(string)?;
        }
        Ok(strings)
    }

    /// The same, but never without a first string: programs take it for granted (`execve(2)`, since Linux 5.18).
    pub fn with_a_first(mut self) -> Result<Strings> {
        if self.count == 0 {
            self.push(b"")?;
        }
        Ok(self)
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// All strings, each with its NUL.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The strings, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes
            .split_inclusive(|&byte| byte == 0)
            .map(|string| &string[..string.len() - 1])
    }
}

/// A copy of a string. `ENOMEM`.
pub fn owned(string: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(string.len())?;
    copy.extend_from_slice(string);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn an_interpreter_gets_the_script_in_place_of_argv0() {
        let mut argv = Strings::default();
        for string in [&b"./script"[..], b"", b"two"] {
            argv.push(string).unwrap();
        }
        let argv = argv
            .for_interpreter(b"/bin/sh", Some(b"-e"), b"./script")
            .unwrap();
        let all: Vec<&[u8]> = argv.iter().collect();
        assert_eq!(all, [&b"/bin/sh"[..], b"-e", b"./script", b"", b"two"]);
        assert_eq!(argv.count(), 5);
    }

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn too_much_is_e2big() {
        let mut argv = Strings::default();
        let long = alloc::vec![b'x'; 100 << 10];
        let error = (0..100).find_map(|_| argv.push(&long).err());
        assert_eq!(error, Some(Errno::E2BIG));
    }
}
