//! `haggle man`: pages for `man`, made of the command line's own definition.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap_mangen::Man;
use serde::Serialize;

use super::command;
use super::context::Context;
use super::failure::{Done, Exit, Failure, OrFail};

/// Writes manual pages.
#[derive(Args, Clone, Debug)]
pub(crate) struct ManArgs {
    /// The directory, which is made where it is missing, such as `/usr/local/share/man/man1`.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Serialize)]
struct ManDocument {
    directory: String,
    pages: Vec<String>,
}

pub(crate) fn run(context: &Context, args: &ManArgs) -> Done {
    let directory = &args.directory;
    fs::create_dir_all(directory)
        .or_mendable(format!("cannot make the directory {}", directory.display()))?;
    let mut names = Vec::new();
    for (name, page) in pages()? {
        let path = directory.join(&name);
        fs::write(&path, page).or_mendable(format!("cannot write {}", path.display()))?;
        names.push(name);
    }
    let document = ManDocument {
        directory: directory.display().to_string(),
        pages: names,
    };
    context.output.show(&document, || {
        let count = document.pages.len();
        format!("wrote {count} pages to {}", directory.display())
    })?;
    Ok(Exit::Success)
}

/// The pages by their file names, that of the program first.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    // Help of a command is in its own page.
    let mut whole = command().disable_help_subcommand(true);
    whole.build();
    let mut pages = Vec::new();
    add(whole, &mut pages)?;
    Ok(pages)
}

fn add(command: clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
    let below: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command)
        .source(format!("haggle {version}"))
        .manual("haggle");
    let mut page = Vec::new();
    man.render(&mut page).or_world("a page cannot be written")?;
    pages.push((man.get_filename(), page));
    for command in below.into_iter().filter(|command| !command.is_hide_set()) {
        add(command, pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_that_says_what_it_takes() {
        let pages = pages().unwrap();
        assert_eq!(pages[0].0, "haggle.1");
        let whole = command();
        for command in whole.get_subcommands() {
            let name = format!("haggle-{}.1", command.get_name());
            let found = pages.iter().find(|(page, _)| *page == name);
            let (_, page) = found.unwrap_or_else(|| panic!("there is no {name}"));
            let text = String::from_utf8(page.clone()).unwrap();
            // As troff is told of an apostrophe, and of what it would obey.
            let text = text.replace("\\*(Aq", "'").replace('\\', "");
            let about = command.get_about().unwrap().to_string();
            let begins: String = about.chars().take_while(|&c| c != '`').collect();
            assert!(text.contains(begins.trim_end()), "{name} lacks: {about}");
            for argument in command.get_arguments().filter(|one| !one.is_hide_set()) {
                let Some(long) = argument.get_long() else {
                    continue;
                };
                assert!(text.contains(&format!("--{long}")), "{name} lacks --{long}");
            }
        }
    }
}
