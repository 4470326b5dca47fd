//! How this program is called again, for the commands that it suggests.

use std::env;
use std::ffi::OsStr;
use std::path::Path;

const NAME: &str = "wonder";

/// What to type for this program: its name where the shell finds it, else its path.
pub(crate) fn typed() -> String {
    let Ok(own) = env::current_exe() else { return NAME.to_owned() };
    let here = env::current_dir().unwrap_or_default();
    of(&own, &here, env::var_os("PATH").as_deref())
}

fn of(own: &Path, here: &Path, search: Option<&OsStr>) -> String {
    let real = own.canonicalize().ok();
    let mut folders = search.into_iter().flat_map(env::split_paths);
    if folders.any(|folder| real.is_some() && folder.join(NAME).canonicalize().ok() == real) {
        return NAME.to_owned();
    }
    let text = match own.strip_prefix(here) {
        Ok(below) if below.components().count() == 1 => format!("./{}", below.display()),
        Ok(below) => below.display().to_string(),
        Err(_) => own.display().to_string(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_named_as_a_shell_finds_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().canonicalize().expect("it is there");
        let bin = here.join("target/debug");
        std::fs::create_dir_all(&bin).expect("it is made");
        let own = bin.join(NAME);
        std::fs::write(&own, "").expect("it is written");
        let search = env::join_paths(["/nowhere".as_ref(), bin.as_path()]).expect("paths");
        assert_eq!(of(&own, &here, Some(&search)), "wonder");
        assert_eq!(of(&own, &here, Some("/nowhere".as_ref())), "target/debug/wonder");
        assert_eq!(of(&own, &bin, None), "./wonder");
        assert_eq!(of(&own, Path::new("/elsewhere"), None), own.display().to_string());
        assert_eq!(of(Path::new("/a b/wonder"), &here, None), "'/a b/wonder'");
        // Another program of the same name is not this one.
        std::fs::write(here.join(NAME), "").expect("it is written");
        assert_eq!(of(&own, &here, Some(here.as_os_str())), "target/debug/wonder");
    }
}
