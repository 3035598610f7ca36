//! `completions` and `man`.

use std::fs;
use std::io::{self, Write as _};

use super::Outcome;
use crate::args::shell::{Completions, Man};
use crate::args::{Cli, PROGRAM};
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) fn completions(args: &Completions) -> Outcome {
    // Generated aside: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::documented(), PROGRAM, &mut script);
    write(&script)
}

pub(crate) fn man(args: &Man) -> Outcome {
    let Some(directory) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::documented()).render(&mut page)?;
        return write(&page);
    };
    let written =
        fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Cli::documented(), directory));
    match written {
        Ok(()) => Ok(Exit::Success),
        Err(err) => Err(Failure::error(format!(
            "Cannot write manual pages to '{}': {err}",
            directory.display()
        ))),
    }
}

fn write(text: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()?;
    Ok(Exit::Success)
}
