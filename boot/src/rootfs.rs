//! The root file system: a tree described in memory, written as an ext4 image by mke2fs and debugfs.
//!
//! debugfs fills the image without mounting, without root rights and without a staging directory. The image has no
//! journal (the kernel mounts it read only), 4096-byte blocks and a fixed UUID and times, so that the same tree gives
//! the same image.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::interrupt::Guarded;
use crate::{image, interrupt, memfile, workspace};

const BLOCK: u64 = 4096;
/// Directories with more entries than this get an index.
const INDEXED_FROM: usize = 100;
/// What ext4 needs for itself in the sizes used here, and some room; the image is sparse, so it costs nothing.
const SLACK: u64 = 16 << 20;
/// Inodes that a fresh ext4 has in use, rounded up.
const RESERVED_INODES: usize = 64;
/// 2026-01-01: the time of everything that has none of its own.
const EPOCH: i64 = 1_767_225_600;
const UUID: &str = "6661756c-746c-696e-6500-000000000001";
/// No journal and nothing that newer mke2fs versions switch on by default: what the kernel's reader knows.
const FEATURES: &str = "none,filetype,extent,64bit,flex_bg,sparse_super,large_file,extra_isize,metadata_csum,dir_index";

/// Where the bytes of a file come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file on the host.
    Host { path: PathBuf, size: u64 },
    /// These bytes.
    Bytes(Vec<u8>),
}

impl Source {
    fn size(&self) -> u64 {
        match self {
            Self::Host { size, .. } => *size,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

#[derive(Debug, Clone)]
enum Node {
    Directory {
        mode: u32,
    },
    File {
        source: Source,
        mode: u32,
        mtime: i64,
    },
    Symlink {
        target: PathBuf,
    },
}

/// What the root file system holds. Paths are absolute; a parent always sorts, and is written, before its children.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Tree {
    /// The directories and files that every guest has, without programs.
    pub fn base() -> Self {
        let mut tree = Self::default();
        for (path, mode) in [
            ("/bin", 0o755),
            ("/dev", 0o755),
            ("/etc", 0o755),
            ("/home", 0o755),
            ("/proc", 0o555),
            ("/root", 0o700),
            ("/tmp", 0o1777),
        ] {
            tree.nodes.insert(path.into(), Node::Directory { mode });
        }
        for (path, text) in [
            (
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
            ),
            ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
            ("/etc/hostname", "faultline\n"),
        ] {
            let source = Source::Bytes(text.as_bytes().to_vec());
            tree.nodes.insert(
                path.into(),
                Node::File {
                    source,
                    mode: 0o644,
                    mtime: EPOCH,
                },
            );
        }
        tree
    }

    /// The paths in the tree, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.nodes.keys().map(PathBuf::as_path)
    }

    /// Adds a directory, and its parents where they are missing. An existing directory gets the new mode.
    pub fn directory(&mut self, path: &Path, mode: u32) -> Result<()> {
        self.insert(path, Node::Directory { mode })
    }

    /// Adds a file with its permission bits and modification time (seconds since 1970); an existing file is replaced.
    pub fn file(&mut self, path: &Path, source: Source, mode: u32, mtime: i64) -> Result<()> {
        self.insert(
            path,
            Node::File {
                source,
                mode,
                mtime,
            },
        )
    }

    /// Adds a symbolic link; an existing file is replaced.
    pub fn symlink(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.insert(
            path,
            Node::Symlink {
                target: target.to_path_buf(),
            },
        )
    }

    /// Adds a file that holds `bytes`.
    pub fn bytes(&mut self, path: &Path, bytes: Vec<u8>, mode: u32) -> Result<()> {
        self.file(path, Source::Bytes(bytes), mode, EPOCH)
    }

    /// A text that changes whenever the image would.
    pub fn identity(&self) -> Result<String> {
        let mut text = String::new();
        for (path, node) in &self.nodes {
            let _ = write!(text, "{path:?} ");
            match node {
                Node::Directory { mode } => _ = writeln!(text, "directory {mode:o}"),
                Node::Symlink { target } => _ = writeln!(text, "-> {target:?}"),
                Node::File {
                    source: Source::Host { path, .. },
                    mode,
                    mtime,
                } => {
                    let _ = write!(text, "{mode:o} {mtime} {}", image::identity(path)?);
                }
                Node::File {
                    source: Source::Bytes(bytes),
                    mode,
                    mtime,
                } => {
                    let mut hasher = DefaultHasher::new();
                    bytes.hash(&mut hasher);
                    let _ = writeln!(
                        text,
                        "{mode:o} {mtime} {} {:016x}",
                        bytes.len(),
                        hasher.finish()
                    );
                }
            }
        }
        Ok(text)
    }

    fn insert(&mut self, path: &Path, node: Node) -> Result<()> {
        let path = normalize(path)?;
        if path == Path::new("/") {
            ensure!(
                matches!(node, Node::Directory { .. }),
                "/ is a directory in the guest"
            );
            return Ok(());
        }
        for parent in path
            .ancestors()
            .skip(1)
            .filter(|parent| *parent != Path::new("/"))
        {
            let parent_node = self
                .nodes
                .entry(parent.to_path_buf())
                .or_insert(Node::Directory { mode: 0o755 });
            ensure!(
                matches!(parent_node, Node::Directory { .. }),
                "{} cannot be put into the guest: {} is not a directory there",
                path.display(),
                parent.display()
            );
        }
        let was_directory = matches!(self.nodes.get(&path), Some(Node::Directory { .. }));
        let is_directory = matches!(node, Node::Directory { .. });
        ensure!(
            is_directory == was_directory || !self.nodes.contains_key(&path),
            "{} is a directory in the guest and cannot be a file too",
            path.display()
        );
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Size of the image in bytes: the contents, ext4's own tables, and slack.
    fn image_size(&self) -> u64 {
        let contents: u64 = self
            .nodes
            .values()
            .map(|node| match node {
                Node::File { source, .. } => source.size().next_multiple_of(BLOCK),
                Node::Directory { .. } | Node::Symlink { .. } => 2 * BLOCK,
            })
            .sum();
        (contents + contents / 32 + SLACK).next_multiple_of(1 << 20)
    }

    /// Writes the tree as an ext4 image into `image`, an empty file.
    pub fn write_image(&self, image: &File) -> Result<()> {
        image
            .set_len(self.image_size())
            .context("cannot size the root file system's image")?;
        self.make_filesystem(image)?;
        let (script, contents) = self.script()?;
        let script = memfile::with_bytes("debugfs-script", &script)?;
        let mut command = Command::new(workspace::require_tool("debugfs", "e2fsprogs")?);
        command
            .arg("-w")
            .arg("-f")
            .arg(memfile::path_in_child(&script))
            .arg(memfile::path_in_child(image));
        let mut inherited = vec![image.as_fd(), script.as_fd()];
        inherited.extend(contents.iter().map(AsFd::as_fd));
        let complaints = run(command, &inherited)?;
        // debugfs goes on after an error and exits with 0; it greets on stderr with its version.
        let complaints: Vec<&str> = complaints
            .lines()
            .filter(|line| !line.starts_with("debugfs "))
            .collect();
        ensure!(
            complaints.is_empty(),
            "debugfs cannot fill the root file system: {}",
            complaints.join("; ")
        );
        if self.has_large_directory() {
            index_directories(image)?;
        }
        Ok(())
    }

    fn has_large_directory(&self) -> bool {
        let mut entries: HashMap<Option<&Path>, usize> = HashMap::new();
        for path in self.paths() {
            *entries.entry(path.parent()).or_default() += 1;
        }
        entries.into_values().any(|count| count > INDEXED_FROM)
    }

    fn make_filesystem(&self, image: &File) -> Result<()> {
        let mke2fs = workspace::require_tool("mke2fs", "e2fsprogs")?;
        let mut command = Command::new(mke2fs);
        command.args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-I",
            "256",
            "-m",
            "0",
            "-L",
            "faultline",
        ]);
        command.args(["-O", FEATURES, "-U", UUID]);
        command.args([
            "-E",
            &format!("hash_seed={UUID},root_owner=0:0,lazy_itable_init=0,nodiscard"),
        ]);
        command
            .arg("-N")
            .arg((self.nodes.len() + RESERVED_INODES).to_string());
        command.arg(memfile::path_in_child(image));
        run(command, &[image.as_fd()]).map(drop)
    }

    /// The debugfs commands that make the tree, and the files in memory that they read from.
    fn script(&self) -> Result<(Vec<u8>, Vec<File>)> {
        let (mut script, mut contents) = (Vec::new(), Vec::new());
        for (path, node) in &self.nodes {
            let guest = quote(path)?;
            match node {
                Node::Directory { mode } => {
                    line(&mut script, &[b"mkdir", &guest]);
                    line(
                        &mut script,
                        &[
                            b"sif",
                            &guest,
                            b"mode",
                            format!("0{:o}", 0o040_000 | mode).as_bytes(),
                        ],
                    );
                }
                Node::Symlink { target } => {
                    line(&mut script, &[b"symlink", &guest, &quote(target)?])
                }
                Node::File {
                    source,
                    mode,
                    mtime,
                } => {
                    let host = match source {
                        Source::Host { path, .. } => path
                            .canonicalize()
                            .with_context(|| format!("{} cannot be read", path.display()))?,
                        Source::Bytes(bytes) => {
                            let file = memfile::with_bytes("guest-file", bytes)?;
                            let path = memfile::path_in_child(&file);
                            contents.push(file);
                            path
                        }
                    };
                    line(&mut script, &[b"write", &quote(&host)?, &guest]);
                    line(
                        &mut script,
                        &[
                            b"sif",
                            &guest,
                            b"mode",
                            format!("0{:o}", 0o100_000 | mode).as_bytes(),
                        ],
                    );
                    line(
                        &mut script,
                        &[b"sif", &guest, b"mtime", format!("@{mtime}").as_bytes()],
                    );
                }
            }
        }
        Ok((script, contents))
    }
}

/// Gives large directories the hash index that ext4 finds names by; debugfs writes them as plain lists.
fn index_directories(image: &File) -> Result<()> {
    let mut command = Command::new(workspace::require_tool("e2fsck", "e2fsprogs")?);
    command
        .args(["-fyD"])
        .arg(memfile::path_in_child(image))
        .env("E2FSCK_TIME", EPOCH.to_string());
    run(command, &[image.as_fd()]).map(drop)
}

/// Runs one of the ext4 tools with `inherited` open in it; returns what it printed on stderr.
fn run(mut command: Command, inherited: &[BorrowedFd<'_>]) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .env("E2FSPROGS_FAKE_TIME", EPOCH.to_string())
        .env("MKE2FS_CONFIG", "/dev/null")
        .env("LC_ALL", "C");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut guarded =
        Guarded::spawn(&mut command, inherited).with_context(|| format!("cannot start {name}"))?;
    let mut complaints = String::new();
    let stderr = guarded.child().stderr.as_mut().expect("stderr is piped");
    stderr
        .read_to_string(&mut complaints)
        .with_context(|| format!("cannot read from {name}"))?;
    let status = guarded
        .child()
        .wait()
        .with_context(|| format!("cannot wait for {name}"))?;
    interrupt::check()?;
    ensure!(
        // e2fsck exits with 1 when it has changed what it was asked to.
        status.success() || name.ends_with("e2fsck") && status.code() == Some(1),
        "{name} failed ({status}): {}",
        complaints.trim()
    );
    Ok(complaints)
}

fn line(script: &mut Vec<u8>, words: &[&[u8]]) {
    script.extend(words.join(&b' '));
    script.push(b'\n');
}

/// A path as one word for debugfs: in double quotes, with inner ones doubled.
fn quote(path: &Path) -> Result<Vec<u8>> {
    let bytes = path.as_os_str().as_bytes();
    ensure!(
        !bytes.contains(&b'\n'),
        "{path:?} cannot be put into the guest: its name holds a line break"
    );
    let mut quoted = vec![b'"'];
    for &byte in bytes {
        if byte == b'"' {
            quoted.push(b'"');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    Ok(quoted)
}

/// The absolute path without `.` and empty parts; `..` is refused.
fn normalize(path: &Path) -> Result<PathBuf> {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => normal.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                bail!(
                    "{} is no path in the guest: it goes upwards",
                    path.display()
                )
            }
        }
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_of(tree: &Tree) -> Vec<u8> {
        let mut image = memfile::create("test-root").unwrap();
        tree.write_image(&image).unwrap();
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut image).unwrap();
        image.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_kernels_reader_finds_what_was_put_in() {
        let host = tempfile::NamedTempFile::new().unwrap();
        let large: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(host.path(), &large).unwrap();
        let mut tree = Tree::base();
        let source = Source::Host {
            path: host.path().to_path_buf(),
            size: large.len() as u64,
        };
        tree.file(Path::new("/deep/er/large"), source, 0o4751, 1_000_000_000)
            .unwrap();
        tree.bytes(Path::new("/odd \"name\" here"), b"odd".to_vec(), 0o600)
            .unwrap();
        tree.symlink(Path::new("/link"), Path::new("deep/er/large"))
            .unwrap();
        for number in 0..500 {
            tree.bytes(
                &PathBuf::from(format!("/many/a-file-with-a-rather-long-name-{number}")),
                vec![7; 10],
                0o644,
            )
            .unwrap();
        }

        let fs = ext4_view::Ext4::load(Box::new(image_of(&tree))).unwrap();
        assert!(fs.read("/link").unwrap() == large);
        assert_eq!(fs.read("/odd \"name\" here").unwrap(), b"odd");
        assert_eq!(
            fs.metadata("/deep/er/large").unwrap().mode() & 0o7777,
            0o4751
        );
        assert_eq!(fs.metadata("/tmp").unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs.metadata("/etc/passwd").unwrap().uid(), 0);
        assert_eq!(
            fs.read("/many/a-file-with-a-rather-long-name-499").unwrap(),
            [7; 10]
        );
    }

    #[test]
    fn the_same_tree_gives_the_same_image() {
        assert!(image_of(&Tree::base()) == image_of(&Tree::base()));
    }

    #[test]
    fn later_files_replace_earlier_ones_but_not_directories() {
        let mut tree = Tree::base();
        tree.bytes(Path::new("/etc/passwd"), b"mine".to_vec(), 0o644)
            .unwrap();
        tree.bytes(Path::new("relative"), Vec::new(), 0o644)
            .unwrap();
        assert!(tree.paths().any(|path| path == Path::new("/relative")));
        assert!(tree.bytes(Path::new("/etc"), Vec::new(), 0o644).is_err());
        assert!(
            tree.directory(Path::new("/etc/passwd/below"), 0o755)
                .is_err()
        );
        assert!(
            tree.bytes(Path::new("/etc/../../up"), Vec::new(), 0o644)
                .is_err()
        );
        assert!(tree.bytes(Path::new("/"), Vec::new(), 0o644).is_err());
    }
}
