//! The kernel's own tests, which stand beside its code, run in QEMU.

use std::time::Duration;

use tests::guest;

/// All test images together must end within this time.
const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn kernel_tests_pass() {
    for image in boot::cargo::kernel_tests().expect("the kernel's tests build") {
        let seen = guest::test_image(&image, LIMIT);
        let report = format!("{}{}", seen.text(), seen.complaints());
        assert_eq!(seen.status, 0, "{}:\n{report}", image.display());
        let result = seen
            .text()
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("test result: ok. ").map(str::to_owned));
        let passed: Option<u32> = result.and_then(|result| result.split(' ').next()?.parse().ok());
        assert!(
            passed.is_some_and(|passed| passed > 0),
            "some tests ran:\n{report}"
        );
        println!("{report}");
    }
}
