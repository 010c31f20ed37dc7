//! userfaultfd: every call, and who waits for how long.

use tests::oracle;
use tests::programs::Compiled;

#[test]
fn userfaultfd_answers_as_on_the_host() {
    oracle::assert_same(&Compiled::fixed("userfault").path(), &[], b"");
}
