//! `MADV_COLLAPSE`, since Linux 6.1.

use std::{fs, io, path::Path};

/// What the administrator says of huge pages. `MADV_COLLAPSE` does not look there.
const SETTINGS: &str = "/sys/kernel/mm/transparent_hugepage";

/// The size of a huge page, if there are any and the administrator wants them just now.
pub(super) fn huge_page_size() -> Option<usize> {
    wanted_size(Path::new(SETTINGS))
}

fn wanted_size(settings: &Path) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(settings.join(name)).ok();
    let size = read("hpage_pmd_size")?.trim().parse().ok()?;
    (size > 0 && !read("enabled")?.contains("[never]")).then_some(size)
}

/// Puts a part of memory into a huge page.
///
/// # Errors
/// The system's: `EINVAL` if it knows nothing of this, `EAGAIN` or `ENOMEM` if it has no huge page.
pub(super) fn gather(part: usize, size: usize) -> io::Result<()> {
    let part = std::ptr::without_provenance_mut::<libc::c_void>(part);
    // SAFETY: the advice changes neither what the memory holds nor what may be done with it, so any
    // address will do: for one that is not this process's the call fails.
    match unsafe { libc::madvise(part, size, libc::MADV_COLLAPSE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::HugePages;

    /// Kilobytes of this process in huge pages.
    fn in_huge_pages() -> u64 {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = rollup
            .lines()
            .find_map(|it| it.strip_prefix("AnonHugePages:"));
        line.unwrap()
            .strip_suffix("kB")
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    #[test]
    fn huge_pages_are_none_where_the_administrator_wants_none() {
        let name = format!("openclat-huge-pages-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let size = |enabled: &str, size: &str| {
            std::fs::write(directory.join("enabled"), enabled).unwrap();
            std::fs::write(directory.join("hpage_pmd_size"), size).unwrap();
            super::wanted_size(&directory)
        };
        let sizes = [
            size("[always] madvise never\n", "2097152\n"),
            size("always [madvise] never\n", "2097152\n"),
            size("always madvise [never]\n", "2097152\n"),
            size("always [madvise] never\n", "0\n"),
        ];
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(sizes, [Some(1 << 21), Some(1 << 21), None, None]);
        assert_eq!(super::wanted_size(&directory), None);
    }

    #[test]
    fn full_memory_gets_into_huge_pages_once_and_stays_as_it_is() {
        let Some(size) = super::huge_page_size() else {
            return;
        };
        let numbers: Vec<u64> = (0..8 * size as u64 / 8).collect();
        let pointers = numbers.as_ptr_range();
        let area = || std::iter::once(pointers.start.addr()..pointers.end.addr());
        let mut pages = HugePages::default();
        let gathered = pages.gather(area());
        if gathered == 0 {
            // Linux before 6.1, or no memory in one piece.
            return;
        }
        assert!((7..=8).contains(&gathered));
        assert!(in_huge_pages() >= (gathered * size / 1024) as u64);
        assert_eq!(pages.gather(area()), 0);
        assert!(numbers.iter().enumerate().all(|(at, it)| at as u64 == *it));
    }

    #[test]
    fn addresses_that_are_nobodys_are_refused() {
        let size = super::huge_page_size().unwrap_or(1 << 21);
        let nobodys = usize::MAX / size * size / 2;
        assert!(super::gather(nobodys, size).is_err());
    }
}
