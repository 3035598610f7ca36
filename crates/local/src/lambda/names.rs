//! Names of functions as callers write them: a name, a part of an ARN, or an ARN, with or without `$LATEST`.

use super::refusal;
use crate::wire::{ACCOUNT, Refusal};

/// The only version that there is.
pub(crate) const LATEST: &str = "$LATEST";

/// A function's region and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FunctionId {
    pub(crate) region: String,
    pub(crate) name: String,
}

impl FunctionId {
    /// Reads a name as a caller in `region` gives it.
    pub(crate) fn read(region: &str, text: &str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = text.split(':').collect();
        let (region, account, rest) = match parts.as_slice() {
            ["arn", "aws", "lambda", region, account, "function", rest @ ..] => (*region, *account, rest),
            [account, "function", rest @ ..] => (region, *account, rest),
            ["function", rest @ ..] | rest => (region, ACCOUNT, rest),
        };
        let (name, qualifier) = match rest {
            [name] => (*name, LATEST),
            [name, qualifier] => (*name, *qualifier),
            _ => return Err(malformed(text)),
        };
        if name.is_empty() || !name.bytes().all(is_named) {
            return Err(malformed(text));
        }
        let id = Self {
            region: region.to_owned(),
            name: name.to_owned(),
        };
        check_qualifier(&id, Some(qualifier))?;
        if account != ACCOUNT {
            return Err(id.missing());
        }
        Ok(id)
    }

    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:lambda:{}:{ACCOUNT}:function:{}", self.region, self.name)
    }

    /// The document's name.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.region, self.name)
    }

    pub(crate) fn log_group(&self) -> String {
        format!("/aws/lambda/{}", self.name)
    }

    /// Says that there is no such function.
    pub(crate) fn missing(&self) -> Refusal {
        Refusal::new(
            "ResourceNotFoundException",
            format!("Function not found: {}", self.arn()),
        )
        .status(404)
    }
}

/// Refuses any version but the latest.
pub(crate) fn check_qualifier(id: &FunctionId, qualifier: Option<&str>) -> Result<(), Refusal> {
    match qualifier {
        None | Some(LATEST) => Ok(()),
        Some(other) => Err(Refusal::new(
            "ResourceNotFoundException",
            format!(
                "Function not found: {}:{other}; the local endpoint has no version but $LATEST, and no aliases",
                id.arn()
            ),
        )
        .status(404)),
    }
}

/// Checks a name for a new function.
pub(crate) fn check_new(name: &str) -> Result<(), Refusal> {
    if name.len() > 64 {
        return Err(refusal(format!(
            "FunctionName '{name}' has {} characters; it may have 64",
            name.len()
        )));
    }
    Ok(())
}

fn is_named(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn malformed(text: &str) -> Refusal {
    refusal(format!(
        "'{text}' is not a function name: use letters, digits, '-' and '_', or the function's ARN"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_is_read() {
        let expected = FunctionId {
            region: "eu-west-1".into(),
            name: "f-1_a".into(),
        };
        for text in [
            "f-1_a",
            "f-1_a:$LATEST",
            "function:f-1_a",
            "000000000000:function:f-1_a",
            "arn:aws:lambda:eu-west-1:000000000000:function:f-1_a",
            "arn:aws:lambda:eu-west-1:000000000000:function:f-1_a:$LATEST",
        ] {
            assert_eq!(FunctionId::read("eu-west-1", text).unwrap(), expected, "{text}");
        }
        let arn = "arn:aws:lambda:us-east-2:000000000000:function:f";
        let id = FunctionId::read("eu-west-1", arn).unwrap();
        assert_eq!((id.region.as_str(), id.arn().as_str()), ("us-east-2", arn));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (text, code) in [
            ("", "InvalidParameterValueException"),
            ("a b", "InvalidParameterValueException"),
            ("a:b:c", "InvalidParameterValueException"),
            ("a:7", "ResourceNotFoundException"),
            ("123456789012:function:a", "ResourceNotFoundException"),
        ] {
            assert_eq!(FunctionId::read("r", text).unwrap_err().code, code, "{text}");
        }
    }
}
