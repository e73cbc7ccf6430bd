//! `docs/benchmarks.md`: the parts between its marks are written by `cargo xtask bench --write`, the
//! rest by people.

use anyhow::{Context, bail};

use crate::sh;

const PAGE: &str = "docs/benchmarks.md";

/// Puts `body` between the marks of `name`.
///
/// # Errors
/// If the page lacks the marks, or can't be read or written.
pub fn write(name: &str, body: &str) -> anyhow::Result<()> {
    let path = sh::root().join(PAGE);
    let page = std::fs::read_to_string(&path).with_context(|| format!("can't read {PAGE}"))?;
    let page = replaced(&page, name, body)?;
    std::fs::write(&path, page).with_context(|| format!("can't write {PAGE}"))?;
    println!("wrote {name} to {PAGE}");
    Ok(())
}

fn replaced(page: &str, name: &str, body: &str) -> anyhow::Result<String> {
    let (begin, end) = (begin(name), "<!-- end -->");
    let Some((before, rest)) = page.split_once(&begin) else {
        bail!("{PAGE} has no mark {begin}");
    };
    let Some((_, after)) = rest.split_once(end) else {
        bail!("{PAGE} has no {end} after {begin}");
    };
    Ok(format!(
        "{before}{begin}\n{}\n{end}{after}",
        body.trim_end()
    ))
}

fn begin(name: &str) -> String {
    format!("<!-- bench: {name} -->")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_of_that_name_changes() {
        let page =
            "a\n<!-- bench: x -->\nold\n<!-- end -->\nb\n<!-- bench: y -->\nkept\n<!-- end -->\n";
        let new = replaced(page, "x", "new\n").expect("marks");
        assert_eq!(new, page.replace("old", "new"));
        assert!(replaced(page, "z", "new").is_err());
    }

    #[test]
    fn the_page_has_a_place_for_every_scenario() {
        let page = std::fs::read_to_string(sh::root().join(PAGE)).expect("there");
        for scenario in super::super::scenarios::ALL {
            assert!(
                replaced(&page, scenario.name, "").is_ok(),
                "{}",
                scenario.name
            );
        }
        for name in ["stages", "metrics"] {
            assert!(replaced(&page, name, "").is_ok(), "{name}");
        }
    }
}
