//! The program's standard input on its way to COM3: the encoding, and the thread that feeds it.
//!
//! A serial line has no end of file, so byte 0x10 (DLE) is an escape: DLE DLE is one DLE, DLE EOT is end of file. The
//! socket to QEMU passes on the guest's pace: a program that does not read leaves the host's input unread, but for
//! what the buffers on the way hold.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};

const DLE: u8 = 0x10;
const EOT: u8 = 0x04;

/// What the program reads as its standard input.
#[derive(Debug, Clone)]
pub enum Input {
    /// Nothing: end of file at once.
    Empty,
    /// These bytes and then end of file.
    Bytes(Vec<u8>),
    /// This process's own standard input.
    Inherit,
}

/// Appends `bytes` to `out` in the line's encoding.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        if byte == DLE {
            out.push(DLE);
        }
        out.push(byte);
    }
}

/// Appends the mark for end of file to `out`.
pub fn encode_end(out: &mut Vec<u8>) {
    out.extend([DLE, EOT]);
}

/// Feeds `input` to `line` in a thread of its own, until the input or the line ends or the other end of `stop` is
/// closed.
pub fn feed(input: Input, line: UnixStream, stop: OwnedFd) -> JoinHandle<()> {
    thread::spawn(move || {
        // An error here is the machine's end, which its owner sees for itself.
        let _ = match input {
            Input::Empty => send(&line, &[], true),
            Input::Bytes(bytes) => send(&line, &bytes, true),
            Input::Inherit => forward(&line, &stop),
        };
    })
}

fn send(mut line: &UnixStream, bytes: &[u8], end: bool) -> io::Result<()> {
    let mut encoded = Vec::with_capacity(bytes.len() + 2);
    encode(bytes, &mut encoded);
    if end {
        encode_end(&mut encoded);
    }
    line.write_all(&encoded)
}

fn forward(line: &UnixStream, stop: &OwnedFd) -> io::Result<()> {
    // Not through std's buffer: what it held back, poll would not see.
    let stdin = io::stdin();
    let is_terminal = stdin.is_terminal();
    let mut buffer = vec![0; 4096];
    loop {
        let mut ready = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if !ready[1].revents().is_empty() {
            return Ok(());
        }
        // An input that cannot be read (a terminal in the background, a directory) has ended for the program.
        let length = rustix::io::read(&stdin, &mut buffer[..]).unwrap_or(0);
        let ended = length == 0;
        send(line, &buffer[..length], ended)?;
        if ended && !is_terminal {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(bytes, &mut out);
        out
    }

    #[test]
    fn only_the_escape_is_doubled() {
        let all: Vec<u8> = (0..=255).collect();
        let mut expected = all.clone();
        expected.insert(0x10, 0x10);
        assert_eq!(encoded(&all), expected);
    }

    #[test]
    fn end_of_file_cannot_be_confused_with_data() {
        assert_eq!(encoded(&[DLE, EOT]), [DLE, DLE, EOT]);
        let mut end = Vec::new();
        encode_end(&mut end);
        assert_eq!(end, [DLE, EOT]);
    }

    #[test]
    fn bytes_arrive_encoded_and_are_followed_by_the_end() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let (stop, _keep) = rustix::pipe::pipe().unwrap();
        feed(Input::Bytes(b"a\x10b".to_vec()), host, stop)
            .join()
            .unwrap();
        let mut seen = Vec::new();
        guest.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"a\x10\x10b\x10\x04");
    }
}
