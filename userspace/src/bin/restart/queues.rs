//! Calls that wait for a message or a semaphore, between processes.

use std::mem::zeroed;
use std::ptr::null_mut;

use libc::{c_int, c_long};

use crate::harness::{Row, result, row};
use crate::waits::LONG;

/// A POSIX queue without a name, with room for one message of eight bytes.
fn queue() -> libc::mqd_t {
    let name = c"/restart";
    // SAFETY: a valid name, and valid attributes.
    unsafe {
        let mut attributes: libc::mq_attr = zeroed();
        attributes.mq_maxmsg = 1;
        attributes.mq_msgsize = 8;
        libc::mq_unlink(name.as_ptr());
        let queue = libc::mq_open(
            name.as_ptr(),
            libc::O_RDWR | libc::O_CREAT,
            0o600,
            &attributes,
        );
        libc::mq_unlink(name.as_ptr());
        queue
    }
}

fn put(queue: libc::mqd_t) -> c_long {
    // SAFETY: eight valid bytes.
    result(unsafe { libc::mq_send(queue, [0; 8].as_ptr(), 8, 0) })
}

fn take(queue: libc::mqd_t) -> c_long {
    let mut bytes = [0; 8];
    // SAFETY: eight bytes to be written; the priority is not asked for.
    result(unsafe { libc::mq_receive(queue, bytes.as_mut_ptr(), 8, null_mut()) } as i64)
}

pub fn mq_receive() -> Row {
    let queue = queue();
    row(
        move || take(queue),
        move || {
            put(queue);
        },
    )
}

pub fn mq_send() -> Row {
    let queue = queue();
    put(queue);
    row(
        move || put(queue),
        move || {
            take(queue);
        },
    )
}

#[repr(C)]
struct Message {
    kind: c_long,
    text: [u8; 4096],
}

/// A System V queue that both processes know. It goes when a call of the demo has come out.
fn system_v_queue() -> c_int {
    // SAFETY: no memory is involved.
    unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) }
}

fn send(queue: c_int, flags: c_int) -> c_long {
    let message = Message {
        kind: 1,
        text: [0; 4096],
    };
    // SAFETY: a valid message.
    result(unsafe { libc::msgsnd(queue, (&raw const message).cast(), 4096, flags) })
}

fn receive(queue: c_int) -> c_long {
    let mut message = Message {
        kind: 0,
        text: [0; 4096],
    };
    // SAFETY: room for a message.
    result(unsafe { libc::msgrcv(queue, (&raw mut message).cast(), 4096, 0, 0) } as i64)
}

/// The answer of `call`, and then the queue is gone.
fn with_queue(queue: c_int, call: impl Fn(c_int) -> c_long) -> c_long {
    let answer = call(queue);
    // SAFETY: nothing is to be written.
    unsafe { libc::msgctl(queue, libc::IPC_RMID, null_mut()) };
    answer
}

pub fn msgrcv() -> Row {
    let queue = system_v_queue();
    row(
        move || with_queue(queue, receive),
        move || {
            send(queue, 0);
        },
    )
}

pub fn msgsnd() -> Row {
    let queue = system_v_queue();
    while send(queue, libc::IPC_NOWAIT) == 0 {}
    row(
        move || with_queue(queue, |queue| send(queue, 0)),
        move || {
            receive(queue);
        },
    )
}

/// Takes one from a semaphore that has none, with a time-out if that is said.
pub fn semop(timeout: bool) -> Row {
    // SAFETY: no memory is involved.
    let semaphores = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
    let add = move |count| {
        let mut operation = libc::sembuf {
            sem_num: 0,
            sem_op: count,
            sem_flg: 0,
        };
        // SAFETY: one valid operation and a valid time.
        result(unsafe {
            match timeout {
                true => libc::syscall(libc::SYS_semtimedop, semaphores, &operation, 1, &LONG),
                false => c_long::from(libc::semop(semaphores, &mut operation, 1)),
            }
        })
    };
    row(
        move || {
            let answer = add(-1);
            // SAFETY: no memory is involved.
            unsafe { libc::semctl(semaphores, 0, libc::IPC_RMID) };
            answer
        },
        move || {
            add(1);
        },
    )
}
