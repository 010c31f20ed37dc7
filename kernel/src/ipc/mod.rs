//! Interprocess communication by keys and numbers: System V shared memory (`sysvipc(7)`).
//!
//! What is made here lives until it is removed, whoever made it; [`table`] finds it, [`permission`] says who may use it, and [`settings`]
//! how much there may be. Lock rank: IPC for the tables, LEAF for what belongs to one object.

pub mod abi;
pub mod permission;
pub mod settings;
pub mod shared_memory;
pub mod table;
