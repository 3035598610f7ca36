//! `cfn-template` and `lambda-export`: what is needed to deploy by hand.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use zae_limiter_infra::template::TEMPLATE;

use crate::args::stack::{CfnTemplate, LambdaExport};
use crate::args::{Format, OutputFormat};
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::text::number;
use crate::text::table::printable;

/// The file name by which functions are started.
const HANDLERS: &str = "aggregator, provisioner";

fn text() -> Out {
    Out::new(&Format {
        output: OutputFormat::Text,
    })
}

pub(crate) fn template(args: &CfnTemplate) -> Outcome {
    let Some(path) = &args.output else {
        // As it is, to the byte.
        let mut to = io::stdout().lock();
        to.write_all(TEMPLATE.as_bytes())?;
        to.flush()?;
        return Ok(Exit::Success);
    };
    let shown = path.display();
    write(path, TEMPLATE.as_bytes(), true).map_err(|err| {
        Failure::bare(
            format!("✗ Failed to export template: cannot write '{shown}': {err}"),
            Exit::Failure,
        )
    })?;
    let mut out = text();
    out.line(format_args!(
        "✓ Template exported to: {}",
        printable(&path.to_string_lossy())
    ))?;
    out.flush()?;
    Ok(Exit::Success)
}

pub(crate) fn package(args: &LambdaExport) -> Outcome {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::bare(format!("✗ Failed to export Lambda package: {why}"), Exit::Failure)
    };
    let source = args.package.source();
    if args.info {
        let info = source.inspect().map_err(|err| failed(&err))?;
        let mut out = text();
        out.line("\nLambda Package Information\n==========================\n")?;
        out.line(format_args!(
            "Package path:      {}",
            printable(&info.path.to_string_lossy())
        ))?;
        out.line(format_args!("Uncompressed size: {}", number::size(info.unpacked)))?;
        out.line("Runtime:           provided.al2023")?;
        out.line(format_args!("Architecture:      {}", info.architecture.as_str()))?;
        out.line(format_args!("Handlers:          {HANDLERS}\n"))?;
        out.flush()?;
        return Ok(Exit::Success);
    }
    let path = &args.output;
    if !args.force && path.exists() {
        return Err(Failure::bare(
            format!(
                "File already exists: {}\nUse --force to overwrite.",
                path.display()
            ),
            Exit::Failure,
        ));
    }
    let package = source.load().map_err(|err| failed(&err))?;
    let cannot = |err: io::Error| failed(&format!("cannot write '{}': {err}", path.display()));
    write(path, &package.bytes, args.force).map_err(cannot)?;
    let mut out = text();
    out.line(format_args!(
        "✓ Exported Lambda package to: {} ({})",
        printable(&path.to_string_lossy()),
        number::size(package.size())
    ))?;
    out.flush()?;
    Ok(Exit::Success)
}

/// Writes a file, and the directories it lies in. One that exists is written over only if that is wanted. If it cannot be
/// written to its end, nothing of it stays.
fn write(path: &Path, bytes: &[u8], over: bool) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(directory) = folder {
        fs::create_dir_all(directory)?;
    }
    let mut file = if over {
        File::create(path)?
    } else {
        File::create_new(path)?
    };
    let written = file.write_all(bytes);
    if written.is_err() && file.metadata().is_ok_and(|file| file.is_file()) {
        let _ = fs::remove_file(path);
    }
    written
}
