//! System calls on sockets, of which there are only pairs.

use alloc::vec::Vec;

use linux_raw_sys::general as abi;
use linux_raw_sys::net;

use super::args::{Args, read_iovecs, usable_file};
use super::control::{self, Space};
use super::fd::{install, install_pair};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::io::{Dst, IOV_MAX, IoVec, MAX_RW_COUNT, Src};
use crate::fs::socket::{self, Control, Kind, Load, Shut, Socket};
use crate::mm::uaccess::{self, UserPtr};

/// Runs `f` on the socket of a descriptor. `EBADF`, `ENOTSOCK`.
fn with_socket<R>(fd: usize, f: impl FnOnce(&File, &Socket) -> Result<R>) -> Result<R> {
    let file = usable_file(fd)?;
    let socket = file.stream().and_then(|stream| stream.socket());
    f(&file, socket.ok_or(Errno::ENOTSOCK)?)
}

/// socketpair(2).
pub fn sys_socketpair(&[domain, kind, protocol, fds, ..]: &Args) -> Result<usize> {
    let (kind, flags) = (kind as u32 & 0xf, kind as u32 & !0xf);
    if flags & !(abi::O_CLOEXEC | abi::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    if domain as u32 != net::AF_UNIX {
        return Err(Errno::EAFNOSUPPORT);
    }
    if ![0, net::AF_UNIX].contains(&(protocol as u32)) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let kind = match kind {
        net::SOCK_STREAM => Kind::Stream,
        net::SOCK_DGRAM | net::SOCK_RAW => Kind::Datagram,
        net::SOCK_SEQPACKET => Kind::Packets,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    let pair = socket::pair(kind, abi::O_RDWR | flags & abi::O_NONBLOCK)?;
    install_pair(pair, flags, fds)
}

/// socket(2): a socket without another could not reach anybody. But the kernel can reach one, for mq_notify(3).
pub fn sys_socket(&[domain, kind, protocol, ..]: &Args) -> Result<usize> {
    let (kind, flags) = (kind as u32 & 0xf, kind as u32 & !0xf);
    if flags & !(abi::O_CLOEXEC | abi::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    if domain as u32 != net::AF_NETLINK {
        return Err(Errno::EAFNOSUPPORT);
    }
    if kind != net::SOCK_RAW && kind != net::SOCK_DGRAM {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if protocol as u32 != NETLINK_ROUTE {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let socket = socket::for_notices(abi::O_RDWR | flags & abi::O_NONBLOCK)?;
    install(socket, flags)
}

/// The protocol that is always there (`include/uapi/linux/netlink.h`).
const NETLINK_ROUTE: u32 = 0;

/// bind(2), listen(2), accept(2), accept4(2): not for the sockets of a pair.
pub fn sys_listen(&[fd, ..]: &Args) -> Result<usize> {
    with_socket(fd, |_, _| Err(Errno::EINVAL))
}

/// connect(2): there are no names to connect to.
pub fn sys_connect(&[fd, ..]: &Args) -> Result<usize> {
    with_socket(fd, |_, _| Err(Errno::ENOENT))
}

/// How a call with `flags` wants it. `EOPNOTSUPP` for urgent data.
fn control(file: &File, flags: u32) -> Result<Control> {
    if flags & net::MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(Control {
        nonblock: flags & net::MSG_DONTWAIT != 0 || file.flags() & abi::O_NONBLOCK != 0,
        no_signal: flags & net::MSG_NOSIGNAL != 0,
        peek: flags & net::MSG_PEEK != 0,
        wait_all: flags & net::MSG_WAITALL != 0,
        whole_length: flags & net::MSG_TRUNC != 0,
    })
}

/// `EISCONN` if a stream is told where to send; datagrams can reach nobody else.
fn check_destination(socket: &Socket, named: bool) -> Result {
    match socket.kind() {
        Kind::Stream if named => Err(Errno::EISCONN),
        Kind::Datagram | Kind::Notices if named => Err(Errno::ECONNREFUSED),
        _ => Ok(()),
    }
}

/// sendto(2).
pub fn sys_sendto(&[fd, addr, len, flags, name, name_len]: &Args) -> Result<usize> {
    with_socket(fd, |file, socket| {
        let control = control(file, flags as u32)?;
        check_destination(socket, name != 0 && name_len != 0)?;
        let piece = [IoVec { base: addr, len }];
        socket.send(&mut Src::user(&piece), Load::default(), control)
    })
}

/// recvfrom(2): nobody has a name.
pub fn sys_recvfrom(&[fd, addr, len, flags, name, name_len]: &Args) -> Result<usize> {
    with_socket(fd, |file, socket| {
        let control = control(file, flags as u32)?;
        let piece = [IoVec { base: addr, len }];
        let received = socket.receive(&mut Dst::user(&piece), control)?;
        if name != 0 {
            UserPtr::<u32>::new(name_len).write(0)?;
        }
        Ok(received.len)
    })
}

/// `struct user_msghdr`, as eight-byte words: name, its length, pieces, their number, control data, its length, flags.
type Header = [usize; 7];
const NAME_LEN: usize = 1;
const CONTROL_LEN: usize = 5;
const FLAGS: usize = 6;

fn read_header(address: usize) -> Result<(Header, Vec<IoVec>)> {
    let header = UserPtr::<Header>::new(address).read()?;
    if header[3] > IOV_MAX {
        return Err(Errno::EMSGSIZE);
    }
    let pieces = read_iovecs(header[2], header[3])?;
    Ok((header, pieces))
}

/// sendmsg(2).
pub fn sys_sendmsg(&[fd, message, flags, ..]: &Args) -> Result<usize> {
    with_socket(fd, |file, socket| {
        let control = control(file, flags as u32)?;
        let (header, pieces) = read_header(message)?;
        let [name, name_len, _, _, data, data_len, _] = header;
        check_destination(socket, name != 0 && name_len as u32 != 0)?;
        let load = control::read(data, data_len)?;
        socket.send(&mut Src::user(&pieces), load, control)
    })
}

/// recvmsg(2).
pub fn sys_recvmsg(&[fd, message, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    with_socket(fd, |file, socket| {
        let control = control(file, flags)?;
        let (header, pieces) = read_header(message)?;
        let mut received = socket.receive(&mut Dst::user(&pieces), control)?;
        let mut space = Space::new(header[4], header[5]);
        if socket.pass_credentials()
            && let Some(sender) = received.sender
        {
            space.put_sender(sender)?;
        }
        let close_on_exec = flags & net::MSG_CMSG_CLOEXEC != 0;
        space.put_files(core::mem::take(&mut received.files), close_on_exec)?;
        let mut shown = flags & net::MSG_CMSG_CLOEXEC;
        if received.cut_off {
            shown |= net::MSG_TRUNC;
        }
        if space.cut_off() {
            shown |= net::MSG_CTRUNC;
        }
        let word = |n: usize| message.wrapping_add(n * size_of::<usize>());
        UserPtr::<u32>::new(word(NAME_LEN)).write(0)?;
        UserPtr::<usize>::new(word(CONTROL_LEN)).write(space.used())?;
        UserPtr::<u32>::new(word(FLAGS)).write(shown)?;
        Ok(received.len.min(MAX_RW_COUNT))
    })
}

/// shutdown(2).
pub fn sys_shutdown(&[fd, how, ..]: &Args) -> Result<usize> {
    with_socket(fd, |_, socket| {
        socket.shutdown(match how as u32 {
            net::SHUT_RD => Shut::READ,
            net::SHUT_WR => Shut::WRITE,
            net::SHUT_RDWR => Shut::all(),
            _ => return Err(Errno::EINVAL),
        });
        Ok(0)
    })
}

/// Writes a value of which the caller takes as much as there is room for, and its length. `EINVAL`, `EFAULT`.
fn write_sized(bytes: &[u8], to: usize, len: usize, full_length: bool) -> Result {
    let pointer = UserPtr::<i32>::new(len);
    let room = usize::try_from(pointer.read()?).map_err(|_| Errno::EINVAL)?;
    let written = room.min(bytes.len());
    uaccess::write_bytes(to, &bytes[..written])?;
    pointer.write(if full_length { bytes.len() } else { written } as i32)
}

/// The address of a socket without a name.
const NO_NAME: [u8; 2] = (net::AF_UNIX as u16).to_ne_bytes();

/// getsockname(2).
pub fn sys_getsockname(&[fd, to, len, ..]: &Args) -> Result<usize> {
    with_socket(fd, |_, _| write_sized(&NO_NAME, to, len, true)).map(|()| 0)
}

/// getpeername(2).
pub fn sys_getpeername(&[fd, to, len, ..]: &Args) -> Result<usize> {
    with_socket(fd, |_, socket| match socket.has_peer() {
        true => write_sized(&NO_NAME, to, len, true),
        false => Err(Errno::ENOTCONN),
    })
    .map(|()| 0)
}

/// getsockopt(2).
pub fn sys_getsockopt(&[fd, level, name, to, len, ..]: &Args) -> Result<usize> {
    with_socket(fd, |_, socket| {
        if level as u32 != net::SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let value = match name as u32 {
            net::SO_TYPE => match socket.kind() {
                Kind::Stream => net::SOCK_STREAM,
                Kind::Datagram => net::SOCK_DGRAM,
                Kind::Packets => net::SOCK_SEQPACKET,
                Kind::Notices => net::SOCK_RAW,
            },
            net::SO_DOMAIN => match socket.kind() {
                Kind::Notices => net::AF_NETLINK,
                _ => net::AF_UNIX,
            },
            net::SO_ERROR => socket
                .take_error()
                .map_or(0, |error| error.to_ret().wrapping_neg() as u32),
            net::SO_SNDBUF => socket.buffers().0 as u32,
            net::SO_RCVBUF => socket.buffers().1 as u32,
            net::SO_PASSCRED => u32::from(socket.pass_credentials()),
            net::SO_PROTOCOL
            | net::SO_ACCEPTCONN
            | net::SO_REUSEADDR
            | net::SO_KEEPALIVE
            | net::SO_BROADCAST => 0,
            net::SO_PEERCRED => {
                return write_sized(&control::sender_bytes(socket.peer()), to, len, false);
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        write_sized(&value.to_ne_bytes(), to, len, false)
    })
    .map(|()| 0)
}

/// setsockopt(2).
pub fn sys_setsockopt(&[fd, level, name, from, len, ..]: &Args) -> Result<usize> {
    with_socket(fd, |_, socket| {
        if level as u32 != net::SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        if (len as i32) < 4 {
            return Err(Errno::EINVAL);
        }
        let value = UserPtr::<u32>::new(from).read()?;
        match name as u32 {
            net::SO_SNDBUF => socket.set_send_buffer(value as usize),
            net::SO_RCVBUF => socket.set_receive_buffer(value as usize),
            net::SO_PASSCRED => socket.set_pass_credentials(value != 0),
            // Of no meaning within one machine.
            net::SO_REUSEADDR
            | net::SO_KEEPALIVE
            | net::SO_BROADCAST
            | net::SO_LINGER
            | net::SO_PRIORITY => {}
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(0)
    })
}
