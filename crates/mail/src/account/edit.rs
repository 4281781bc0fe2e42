//! Changing one thing in a file of accounts that a person wrote, whose words, order and comments stay.
//!
//! The file is edited line by line, which knows less of TOML than a parser does. So the outcome is read again, and counts
//! only where it says what was there before and the one change; else nothing is changed, and the person is told.

use super::Accounts;

/// The text of a file of accounts in which one account says whether its provider files in Sent what it takes.
///
/// Nothing, where the file is written in a way that cannot be edited so.
pub fn with_provider_files_sent(text: &str, name: &str, files: bool) -> Option<String> {
    let mut wanted = Accounts::parse(text).ok()?;
    let place = wanted.accounts.iter().position(|account| account.name == name)?;
    wanted.accounts[place].provider_files_sent = Some(files);

    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let heads = lines.iter().enumerate().filter(|(_, line)| head_of(line) == "[[account]]");
    let head = heads.map(|(at, _)| at).nth(place)?;
    let end = lines.iter().skip(head + 1).position(|line| line.trim_start().starts_with('['));
    let end = end.map_or(lines.len(), |after| head + 1 + after);
    let says = format!("{KEY} = {files}");
    let of_key =
        |line: &String| line.trim_start().strip_prefix(KEY).is_some_and(|rest| rest.trim_start().starts_with('='));
    match lines[head..end].iter().position(of_key) {
        Some(after) => lines[head + after] = says,
        None => lines.insert(head + 1, says),
    }
    let changed = lines.join("\n") + "\n";
    (Accounts::parse(&changed).ok()? == wanted).then_some(changed)
}

/// A line without its comment, where it has no strings.
fn head_of(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

const KEY: &str = "provider_files_sent";

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[[account]] # the first\nname = \"a\"\naddresses = [\n  \"a@a.test\", # [[account]]\n]\n\
                        [account.smtp]\nhost = \"h\"\n\n[[account]]\naddresses = [\"b@b.test\"]\nname = \"b\"\n\
                        provider_files_sent=false # asked\n[account.smtp]\nhost = \"h\"\n";

    #[test]
    fn one_line_is_added_or_changed_and_all_others_stay() {
        let added = with_provider_files_sent(TEXT, "a", true).unwrap();
        assert_eq!(added.replacen("provider_files_sent = true\n", "", 1), TEXT);
        let of = |text: &str, name: &str| {
            Accounts::parse(text).unwrap().iter().find(|account| account.name == name).unwrap().provider_files_sent
        };
        assert_eq!((of(&added, "a"), of(&added, "b")), (Some(true), Some(false)));
        let changed = with_provider_files_sent(TEXT, "b", true).unwrap();
        assert_eq!(changed.lines().count(), TEXT.lines().count());
        assert_eq!((of(&changed, "a"), of(&changed, "b")), (None, Some(true)));
    }

    #[test]
    fn what_cannot_be_edited_for_sure_is_left_alone() {
        let inline = "account = [{ name = \"a\", addresses = [\"a@a.test\"], smtp = { host = \"h\" } }]\n";
        assert_eq!(with_provider_files_sent(inline, "a", true), None);
        assert_eq!(with_provider_files_sent(TEXT, "c", true), None);
        // What looks like an account stands in a string.
        let misleading = "[[account]]\nname = \"\"\"\n[[account]]\n\"\"\"\naddresses = [\"a@a.test\"]\n[account.smtp]\nhost = \"h\"\n\
                          [[account]]\nname = \"b\"\naddresses = [\"b@b.test\"]\n[account.smtp]\nhost = \"h\"\n";
        assert!(Accounts::parse(misleading).is_ok());
        assert_eq!(with_provider_files_sent(misleading, "b", true), None);
    }
}
