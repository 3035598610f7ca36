//! Asking before something is destroyed.

use std::io::{self, BufRead, Write as _};

use crate::args::{Consent, Format, OutputFormat};
use crate::failure::Failure;
use crate::text::table::printable;

/// Asks a question that is answered by yes or no, unless consent was given in advance.
///
/// The question goes to standard output, but not among JSON.
pub(crate) async fn agreed(consent: &Consent, format: &Format, question: String) -> Result<bool, Failure> {
    if consent.yes {
        return Ok(true);
    }
    let beside = format.output == OutputFormat::Json;
    // Reading blocks; Ctrl-C must not have to wait for it.
    tokio::task::spawn_blocking(move || ask(&question, beside))
        .await
        .unwrap_or_else(|_| Err(Failure::aborted()))
}

fn ask(question: &str, beside: bool) -> Result<bool, Failure> {
    let show = |text: &str| -> io::Result<()> {
        if beside {
            io::stderr().write_all(text.as_bytes())
        } else {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        }
    };
    let prompt = format!("{} [y/N]: ", printable(question));
    loop {
        show(&prompt)?;
        let mut answer = String::new();
        if !matches!(io::stdin().lock().read_line(&mut answer), Ok(1..)) {
            show("\n")?;
            return Err(Failure::aborted());
        }
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" | "" => return Ok(false),
            _ => show("Error: invalid input\n")?,
        }
    }
}
