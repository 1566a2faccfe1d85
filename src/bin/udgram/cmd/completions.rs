//! `udgram completions`: prints the completion script for a shell.

use crate::cli::{Completions, Shell};
use crate::exit::Exit;
use crate::output::Output;
use crate::signal::{Signals, stop_descriptor};
use anyhow::Result;
use udgram::wait::Wake;

pub(crate) fn run(options: &Completions) -> Result<Exit> {
    let script: &[u8] = match options.shell {
        Shell::Bash => include_bytes!("../../../../completions/udgram.bash"),
        Shell::Zsh => include_bytes!("../../../../completions/_udgram"),
        Shell::Fish => include_bytes!("../../../../completions/udgram.fish"),
        Shell::Elvish => include_bytes!("../../../../completions/udgram.elv"),
        Shell::Powershell => include_bytes!("../../../../completions/_udgram.ps1"),
    };
    Signals::install_if(false)?;
    let mut output = Output::new();
    output.lines.extend_from_slice(script);
    output.flush(&Wake::new(stop_descriptor(), None))?;
    Ok(Exit::Done)
}
