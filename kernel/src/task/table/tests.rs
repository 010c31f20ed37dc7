use super::*;
use crate::arch::sim::machine::run_test;
use crate::mm::Mm;

/// A process in the table, in the group and session of another one or in its own.
fn add(like: Option<&Process>) -> Arc<Process> {
    let id = new_id().expect("a number");
    let space = Mm::new().expect("memory");
    let process = Process::first(id.get(), space).expect("memory");
    insert(id, process.clone(), None, like);
    process
}

fn pids(members: Members) -> Vec<u32> {
    members.map(|process| process.pid).collect()
}

#[test]
fn a_number_is_taken_as_long_as_a_group_or_a_session_has_it() {
    run_test(|| {
        let leader = add(None);
        let member = add(Some(&leader));
        let id = leader.pid;
        assert_eq!((member.group(), pids(members(id)).len()), (id, 2));
        remove(id);
        assert!(find(id).is_none());
        assert_eq!(take_id(id).err(), Some(Errno::EEXIST));
        // The group is gone, the session is not.
        set_group(&member, member.pid).expect("a group of its own");
        assert!(pids(members(id)).is_empty());
        assert_eq!(set_group(&member, id), Err(Errno::EPERM));
        assert_eq!(take_id(id).err(), Some(Errno::EEXIST));
        assert_eq!(new_session(&member), Err(Errno::EPERM));
        remove(member.pid);
        assert_eq!(take_id(id).map(|id| id.get()), Ok(id));
        assert_eq!(take_id(member.pid).map(|id| id.get()), Ok(member.pid));
    });
}

#[test]
fn nobody_leads_a_session_while_there_is_a_group_with_its_number() {
    run_test(|| {
        let first = add(None);
        let leader = add(Some(&first));
        let member = add(Some(&first));
        set_group(&leader, leader.pid).expect("a group of its own");
        set_group(&member, leader.pid).expect("a group of the session");
        set_group(&leader, first.pid).expect("back");
        assert_eq!(new_session(&leader), Err(Errno::EPERM));
        set_group(&member, first.pid).expect("back");
        assert_eq!(new_session(&leader), Ok(()));
        assert_eq!(set_group(&member, leader.pid), Err(Errno::EPERM));
        let mut in_session = Vec::new();
        for_each_in_session(leader.pid, |process| in_session.push(process.pid));
        assert_eq!(in_session, [leader.pid]);
        for process in [first, leader, member] {
            remove(process.pid);
        }
    });
}

#[test]
fn a_walk_over_a_group_goes_on_when_its_place_is_gone() {
    run_test(|| {
        let leader = add(None);
        let others: Vec<_> = (0..5).map(|_| add(Some(&leader))).collect();
        let mut walk = members(leader.pid);
        let mut next = || walk.next().map(|process| process.pid);
        assert_eq!(next(), Some(leader.pid));
        remove(leader.pid);
        remove(others[0].pid);
        assert_eq!(next(), Some(others[1].pid));
        // It leaves and comes back, behind the others.
        set_group(&others[1], others[1].pid).expect("a group of its own");
        set_group(&others[1], leader.pid).expect("back");
        assert_eq!(next(), Some(others[2].pid));
        remove(others[4].pid);
        assert_eq!(next(), Some(others[3].pid));
        assert_eq!(next(), Some(others[1].pid));
        assert_eq!((next(), next()), (None, None));
        for process in &others[1..4] {
            remove(process.pid);
        }
        assert_eq!(next(), None);
    });
}
