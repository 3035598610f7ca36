//! What makes the program at home in a shell: `completions` and `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print completions for a shell.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter completions bash > ~/.local/share/bash-completion/completions/zae-limiter
  zae-limiter completions fish > ~/.config/fish/completions/zae-limiter.fish"
)]
pub(crate) struct Completions {
    /// Shell to print completions for
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Print the manual page, or write one for every command.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # Read it
  zae-limiter man | man -l -

  # Install it
  zae-limiter man --dir ~/.local/share/man/man1"
)]
pub(crate) struct Man {
    /// Write the pages of all commands into this directory
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}
