//! Interprocess communication: System V shared memory, semaphores and message queues (`sysvipc(7)`), and POSIX message queues (`mq_overview(7)`).
//!
//! What is made here lives until it is removed, whoever made it. What has a key and a number is found by a [`table`], and [`permission`]
//! says who may use it; [`settings`] say how much there may be. Lock rank: IPC for tables, queues and sets, SEGMENT for segments.

pub mod abi;
mod memory;
mod message;
pub mod message_queue;
pub mod permission;
pub mod posix_queue;
pub mod semaphore;
pub mod settings;
pub mod shared_memory;
pub mod table;
mod waiters;
