//! The order of the checks after a fault attempt (signal, error, retry) is a type: any other order does not compile.

#[test]
fn only_the_right_order_compiles() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/order/right_order.rs");
    cases.compile_fail("tests/order/error_before_signal.rs");
    cases.compile_fail("tests/order/retry_before_error.rs");
    cases.compile_fail("tests/order/retry_before_signal.rs");
    cases.compile_fail("tests/order/outcome_forged.rs");
}
