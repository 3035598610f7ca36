//! Whether an executable can run as a function on Amazon Linux 2023.

use object::elf::{EM_AARCH64, EM_X86_64, ET_DYN, ET_EXEC, FileHeader64};
use object::read::elf::{ElfFile, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _};

use crate::Error;

/// The newest glibc that an executable may ask for: that of Amazon Linux 2023.
const GLIBC: (u32, u32) = (2, 34);

/// How to get an executable that runs.
const WAY_OUT: &str = "Build it on a system with glibc 2.34 or older, or for a musl target \
                       (x86_64-unknown-linux-musl, aarch64-unknown-linux-musl), or give such a file with \
                       --lambda-package";

/// The processor that functions run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `x86_64`.
    X86,
    /// `arm64`.
    Arm,
}

impl Architecture {
    /// As Lambda calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "arm64",
        }
    }
}

/// Whether the bytes begin as an executable of Linux and most other systems does.
pub(crate) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Checks that an executable runs as a function, and returns its architecture. `what` names it in errors.
pub(crate) fn check(bytes: &[u8], what: &str) -> Result<Architecture, Error> {
    let wrong = |why: &str| Error::Package(format!("{what} cannot run as a function: {why}. {WAY_OUT}."));
    if !is_elf(bytes) {
        return Err(wrong("it is not a Linux executable"));
    }
    let damaged = |err: object::Error| {
        wrong(&format!(
            "it is not a 64-bit Linux executable, or damaged ({err})"
        ))
    };
    let file = ElfFile::<FileHeader64<Endianness>>::parse(bytes).map_err(damaged)?;
    let endian = file.endian();
    let header = file.elf_header();
    if !matches!(header.e_type(endian), ET_EXEC | ET_DYN) {
        return Err(wrong("it is an object file, not an executable"));
    }
    let (architecture, loader) = match (header.e_machine(endian), file.is_little_endian()) {
        (EM_X86_64, true) => (Architecture::X86, "/lib64/ld-linux-x86-64.so.2"),
        (EM_AARCH64, true) => (Architecture::Arm, "/lib/ld-linux-aarch64.so.1"),
        _ => return Err(wrong("it is for another processor than x86_64 or arm64")),
    };
    let mut dynamic = false;
    for segment in file.elf_program_headers() {
        if let Some(interpreter) = segment.interpreter(endian, bytes).map_err(damaged)? {
            dynamic = true;
            if interpreter != loader.as_bytes() {
                return Err(wrong(&format!(
                    "it is loaded by '{}', which is not there ('{loader}' is)",
                    String::from_utf8_lossy(interpreter)
                )));
            }
        }
    }
    if dynamic
        && let Some((major, minor)) = newest_glibc(&file, bytes).map_err(damaged)?
        && (major, minor) > GLIBC
    {
        return Err(wrong(&format!(
            "it needs glibc {major}.{minor}, Amazon Linux 2023 has {}.{}",
            GLIBC.0, GLIBC.1
        )));
    }
    Ok(architecture)
}

/// The newest version of glibc that the executable's symbols ask for.
fn newest_glibc(
    file: &ElfFile<'_, FileHeader64<Endianness>>,
    bytes: &[u8],
) -> Result<Option<(u32, u32)>, object::Error> {
    let endian = file.endian();
    let sections = file.elf_section_table();
    let Some((mut needs, strings)) = sections.gnu_verneed(endian, bytes)? else {
        return Ok(None);
    };
    let strings = sections.strings(endian, bytes, strings)?;
    let mut newest = None;
    while let Some((_, mut versions)) = needs.next()? {
        while let Some(version) = versions.next()? {
            newest = newest.max(glibc(version.name(endian, strings)?));
        }
    }
    Ok(newest)
}

/// Reads `GLIBC_2.34` or `GLIBC_2.2.5`.
fn glibc(name: &[u8]) -> Option<(u32, u32)> {
    let mut parts = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?.split('.');
    let mut next = || parts.next()?.parse().ok();
    Some((next()?, next()?))
}

/// The smallest executable that passes: a header and nothing else. For tests.
#[cfg(test)]
pub(crate) fn tiny(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16..18].copy_from_slice(&2_u16.to_le_bytes());
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20] = 1;
    bytes[52..54].copy_from_slice(&64_u16.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(bytes: &[u8], why: &str) {
        let text = check(bytes, "'file'").unwrap_err().to_string();
        assert!(text.starts_with("'file' cannot run as a function: "), "{text}");
        assert!(
            text.contains(why) && text.ends_with("--lambda-package."),
            "{text}"
        );
    }

    /// An executable with an interpreter, and a table that asks for one version.
    fn dynamic(interpreter: &str, version: &str) -> Vec<u8> {
        let mut bytes = tiny(62);
        let mut put = |at: usize, field: &[u8]| {
            if bytes.len() < at + field.len() {
                bytes.resize(at + field.len(), 0);
            }
            bytes[at..at + field.len()].copy_from_slice(field);
        };
        let word = u64::to_le_bytes;
        // One program header, behind the file's.
        put(32, &word(64));
        put(54, &56_u16.to_le_bytes());
        put(56, &1_u16.to_le_bytes());
        let path = [interpreter.as_bytes(), b"\0"].concat();
        put(64, &3_u32.to_le_bytes());
        put(64 + 8, &word(512));
        put(64 + 32, &word(path.len() as u64));
        put(512, &path);
        // Strings, and the table: one file, one version.
        let names = [b"\0libc.so.6\0", version.as_bytes(), b"\0"].concat();
        put(640, &names);
        put(800, &1_u16.to_le_bytes());
        put(802, &1_u16.to_le_bytes());
        put(804, &1_u32.to_le_bytes());
        put(808, &16_u32.to_le_bytes());
        put(816 + 8, &11_u32.to_le_bytes());
        put(816 + 12, &0_u32.to_le_bytes());
        // Three sections: none, strings, versions.
        put(40, &word(1024));
        put(58, &64_u16.to_le_bytes());
        put(60, &3_u16.to_le_bytes());
        put(62, &1_u16.to_le_bytes());
        let mut section = |index: usize, kind: u32, offset: u64, size: u64, link: u32| {
            let at = 1024 + index * 64;
            put(at + 63, &[0]);
            put(at + 4, &kind.to_le_bytes());
            put(at + 24, &word(offset));
            put(at + 32, &word(size));
            put(at + 40, &link.to_le_bytes());
        };
        section(0, 0, 0, 0, 0);
        section(1, 3, 640, names.len() as u64, 0);
        section(2, 0x6fff_fffe, 800, 32, 1);
        bytes
    }

    #[test]
    fn static_executables_of_both_processors_run() {
        assert_eq!(check(&tiny(62), "").unwrap(), Architecture::X86);
        assert_eq!(check(&tiny(183), "").unwrap(), Architecture::Arm);
    }

    #[test]
    fn what_does_not_run_says_why() {
        refused(b"MZ\x90", "not a Linux executable");
        refused(b"", "not a Linux executable");
        refused(b"\x7fELF\x02\x01", "damaged");
        refused(&tiny(243), "another processor");
        let mut object = tiny(62);
        object[16] = 1;
        refused(&object, "object file");
        let mut half = tiny(62);
        half[4] = 1;
        refused(&half, "not a 64-bit");
        let mut big_endian = tiny(62);
        big_endian[5] = 2;
        big_endian[16..20].copy_from_slice(&[0, 2, 0, 62]);
        refused(&big_endian, "another processor");
    }

    #[test]
    fn a_glibc_that_is_too_new_is_refused() {
        const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
        check(&dynamic(LOADER, "GLIBC_2.34"), "").unwrap();
        check(&dynamic(LOADER, "GLIBC_2.2.5"), "").unwrap();
        check(&dynamic(LOADER, "GCC_3.0"), "").unwrap();
        refused(
            &dynamic(LOADER, "GLIBC_2.35"),
            "needs glibc 2.35, Amazon Linux 2023 has 2.34",
        );
        refused(&dynamic(LOADER, "GLIBC_3.0"), "needs glibc 3.0");
        refused(
            &dynamic("/lib/ld-musl-x86_64.so.1", "GCC_3.0"),
            "'/lib/ld-musl-x86_64.so.1'",
        );
    }

    #[test]
    fn truncated_files_are_refused_without_a_panic() {
        let whole = dynamic("/lib64/ld-linux-x86-64.so.2", "GLIBC_2.34");
        for length in 0..whole.len() {
            // Some cuts leave a file that says less; none may panic.
            let _ = check(&whole[..length], "");
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn a_real_executable_is_read() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        match check(&bytes, "this") {
            Ok(architecture) => {
                let expected = if cfg!(target_arch = "x86_64") {
                    "x86_64"
                } else {
                    "arm64"
                };
                assert_eq!(architecture.as_str(), expected);
            }
            // Where it was built, glibc may be newer.
            Err(err) => assert!(err.to_string().contains("needs glibc"), "{err}"),
        }
    }
}
