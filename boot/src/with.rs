//! `--with HOST[:GUEST]`: files and folders of the host in the guest's root file system.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::rootfs::{Source, Tree};

/// One `--with` option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct With {
    /// The file or folder on the host.
    pub host: PathBuf,
    /// Where it appears in the guest, absolute.
    pub guest: PathBuf,
}

impl With {
    /// Reads `HOST[:GUEST]`. Without GUEST a file appears in the root under its own name, and so does a folder. A host
    /// path that holds a colon is taken whole if it exists; GUEST is taken from the root if it is relative.
    pub fn parse(spec: &OsStr) -> Result<Self> {
        let bytes = spec.as_bytes();
        let colon = bytes.iter().rposition(|&byte| byte == b':');
        let (host, guest) = match colon {
            Some(colon) if !Path::new(spec).exists() => (
                OsStr::from_bytes(&bytes[..colon]),
                Some(Path::new(OsStr::from_bytes(&bytes[colon + 1..]))),
            ),
            _ => (spec, None),
        };
        let host = PathBuf::from(host);
        let metadata = fs::metadata(&host)
            .with_context(|| format!("--with: {} cannot be read", host.display()))?;
        ensure!(
            metadata.is_file() || metadata.is_dir(),
            "--with: {} is neither a file nor a folder",
            host.display()
        );
        let guest = match guest {
            Some(guest) => Path::new("/").join(guest),
            None => {
                let full = host
                    .canonicalize()
                    .with_context(|| format!("--with: {} cannot be read", host.display()))?;
                // The name as it was typed, unless that is `.` or `..`: a symbolic link keeps its own name.
                let name = host.file_name().or(full.file_name());
                Path::new("/").join(name.unwrap_or_default())
            }
        };
        Ok(Self { host, guest })
    }

    /// Puts the file, or the folder with everything below it, into `tree`.
    pub fn add_to(&self, tree: &mut Tree) -> Result<()> {
        add(tree, &self.guest, &self.host, true)
    }
}

/// Adds `host` as `guest`. A symbolic link that the user named is followed; one inside a folder stays a link.
fn add(tree: &mut Tree, guest: &Path, host: &Path, follow: bool) -> Result<()> {
    let name = host.display();
    let metadata = if follow {
        fs::metadata(host)
    } else {
        fs::symlink_metadata(host)
    };
    let metadata = metadata.with_context(|| format!("--with: {name} cannot be read"))?;
    let mode = metadata.mode() & 0o7777;
    let kind = metadata.file_type();
    if kind.is_dir() {
        tree.directory(guest, mode)?;
        let entries =
            fs::read_dir(host).with_context(|| format!("--with: {name} cannot be read"))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("--with: {name} cannot be read"))?;
            add(tree, &guest.join(entry.file_name()), &entry.path(), false)?;
        }
        Ok(())
    } else if kind.is_file() {
        // Opened here, so that a file that cannot be read is refused by name.
        fs::File::open(host).with_context(|| format!("--with: {name} cannot be read"))?;
        let source = Source::Host {
            path: host.to_path_buf(),
            size: metadata.len(),
        };
        tree.file(guest, source, mode, metadata.mtime())
    } else if kind.is_symlink() {
        let target =
            fs::read_link(host).with_context(|| format!("--with: {name} cannot be read"))?;
        tree.symlink(guest, &target)
    } else {
        bail!("--with: {name} is neither a file, a folder nor a symbolic link")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn parse(spec: &Path) -> Result<With> {
        With::parse(spec.as_os_str())
    }

    #[test]
    fn guest_path_is_given_or_the_hosts_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("data.txt");
        fs::write(&file, "x").unwrap();
        assert_eq!(parse(&file).unwrap().guest, Path::new("/data.txt"));
        let spec = |guest: &str| PathBuf::from(format!("{}:{guest}", file.display()));
        assert_eq!(
            parse(&spec("/etc/other")).unwrap(),
            With {
                host: file.clone(),
                guest: "/etc/other".into()
            }
        );
        assert_eq!(
            parse(&spec("etc/other")).unwrap().guest,
            Path::new("/etc/other")
        );
    }

    #[test]
    fn an_existing_name_with_a_colon_is_taken_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a:b");
        fs::write(&file, "x").unwrap();
        assert_eq!(parse(&file).unwrap().guest, Path::new("/a:b"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = With::parse(OsStr::new("/nonexistent/file:/x")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("/nonexistent/file cannot be read"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_comes_with_its_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "hello").unwrap();
        symlink("file", dir.path().join("sub/link")).unwrap();
        let mut tree = Tree::default();
        With {
            host: dir.path().to_path_buf(),
            guest: "/data".into(),
        }
        .add_to(&mut tree)
        .unwrap();
        let paths: Vec<_> = tree.paths().collect();
        assert_eq!(
            paths,
            ["/data", "/data/sub", "/data/sub/file", "/data/sub/link"].map(Path::new)
        );
    }

    #[test]
    fn a_device_is_refused() {
        assert!(
            With::parse(OsStr::new("/dev/null"))
                .unwrap_err()
                .to_string()
                .contains("neither")
        );
    }
}
