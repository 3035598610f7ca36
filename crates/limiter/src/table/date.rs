//! Reads the table's time from its answers.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// When an answer was given, in seconds since the epoch, if it is the service's own and new.
///
/// An answer without a request id is a proxy's or a captive portal's page; one with an age comes from a cache.
pub(super) fn date_of<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<i64> {
    header("x-amzn-requestid")?;
    if header("age").is_some() {
        return None;
    }
    let date = DateTime::from_str(header("date")?, Format::HttpDate).ok()?;
    Some(date.secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&'static str, &'static str)], date: Option<i64>) {
        let header = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| *value)
        };
        assert_eq!(date_of(header), date, "{headers:?}");
    }

    #[test]
    fn only_a_new_answer_of_the_service_tells_the_time() {
        let id = (
            "x-amzn-RequestId",
            "4KBNVRGD25RG1KEO9UT4V3FQDJVV4KQNSO5AEMVJF66Q9ASUAAJG",
        );
        let date = ("Date", "Sat, 28 Nov 2026 05:00:00 GMT");
        check(&[id, date], Some(1_795_842_000));
        check(&[date], None);
        check(&[id], None);
        check(&[id, date, ("Age", "0")], None);
        check(&[id, ("Date", "yesterday")], None);
        check(&[id, ("Date", "")], None);
        check(&[id, ("Date", "Sat, 31 Feb 2026 05:00:00 GMT")], None);
        check(&[id, ("Date", "Thu, 01 Jan 1970 00:00:00 GMT")], Some(0));
    }
}
