//! Which instructions take hardware long though they count as one.

/// The name of a slow instruction's kind, `-` for all others.
pub fn kind(bytes: &[u8]) -> &'static str {
    let is_prefix = |byte: &u8| {
        matches!(
            byte,
            0x66 | 0x67 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 | 0xf2 | 0xf3
        )
    };
    let locked = bytes.first() == Some(&0xf0);
    let operand_size = bytes.first() == Some(&0x66);
    let start = bytes
        .iter()
        .position(|byte| !is_prefix(byte) && *byte != 0xf0 && byte & 0xf0 != 0x40);
    let code = &bytes[start.unwrap_or(bytes.len())..];
    // The middle bits of the byte behind the opcode, and whether it names a register.
    let extension = |at: usize| code.get(at).map(|byte| (byte >> 3 & 7, byte >> 6 == 3));
    match code {
        [0xcf, ..] => "iret",
        [0xf4, ..] => "hlt",
        [0xe4..=0xe7 | 0xec..=0xef, ..] => "port",
        [0x0f, 0x30, ..] => "wrmsr",
        [0x0f, 0x32, ..] => "rdmsr",
        [0x0f, 0xa2, ..] => "cpuid",
        [0x0f, 0x08 | 0x09, ..] => "cache flush",
        [0x0f, 0x22, ..] if extension(2).is_some_and(|(register, _)| register == 3) => "cr3 write",
        [0x0f, 0x22, ..] => "cr write",
        [0x0f, 0x23, ..] => "debug register write",
        [0x0f, 0x38, 0x82, ..] if operand_size => "invpcid",
        [0x0f, 0x00, ..] => "segment table",
        [0x0f, 0x01, second, ..] => match (extension(2), second) {
            (Some((7, false)), _) => "invlpg",
            (Some((2 | 3, false)), _) => "segment table",
            (_, 0xf8) => "swapgs",
            _ => "-",
        },
        [0x0f, 0xae, ..] => match extension(2) {
            Some((4, false)) => "xsave",
            Some((5, false)) => "xrstor",
            Some((0, false)) => "fxsave",
            Some((1, false)) => "fxrstor",
            Some((6, true)) => "mfence",
            Some((6, false)) if operand_size => "cache flush",
            // XSAVEOPT.
            Some((6, false)) => "xsave",
            Some((7, false)) => "cache flush",
            _ => "-",
        },
        [0x0f, 0xc7, ..] => match extension(2) {
            Some((3 | 5, false)) => "xrstor",
            Some((4, false)) => "xsave",
            _ if locked => "locked",
            _ => "-",
        },
        // With memory it is locked without a prefix.
        [0x86 | 0x87, ..] if extension(1).is_some_and(|(_, register)| !register) => "locked",
        _ if locked => "locked",
        _ => "-",
    }
}
