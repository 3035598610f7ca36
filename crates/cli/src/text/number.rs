//! Numbers for people: thousands separators, and averages computed from integers alone.

/// An integer with thousands separators: `15,000`, `-15`.
pub(crate) fn grouped(number: i128) -> String {
    group_digits(&number.to_string())
}

/// Puts thousands separators into a run of digits, which may begin with a minus sign.
pub(crate) fn group_digits(text: &str) -> String {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let mut out = String::from(sign);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `total / count` with two decimals and separators: `18,750.00`. Halves go to the even service; nothing
/// counted averages to zero.
pub(crate) fn average(total: i128, count: u64) -> String {
    let count = u128::from(count.max(1));
    let magnitude = total.unsigned_abs();
    // Split before scaling, so that no total overflows: the remainder is below 2^64.
    let mut whole = magnitude / count;
    let scaled = magnitude % count * 100;
    let mut cents = scaled / count;
    let twice_rest = scaled % count * 2;
    if twice_rest > count || twice_rest == count && cents % 2 == 1 {
        cents += 1;
    }
    if cents == 100 {
        cents = 0;
        whole += 1;
    }
    let sign = if total < 0 && (whole, cents) != (0, 0) {
        "-"
    } else {
        ""
    };
    format!("{sign}{}.{cents:02}", group_digits(&whole.to_string()))
}

/// A size: `512 B`, `1.5 KB`, `2 MB`, in steps of 1024 and with a decimal where it says something.
pub(crate) fn size(bytes: u64) -> String {
    let (unit, divisor) = match bytes {
        0..0x400 => return format!("{bytes} B"),
        0x400..0x10_0000 => ("KB", 0x400),
        0x10_0000..0x4000_0000 => ("MB", 0x10_0000),
        _ => ("GB", 0x4000_0000),
    };
    let (whole, tenths) = (bytes / divisor, bytes % divisor * 10 / divisor);
    if tenths == 0 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_average(total: i128, count: u64, expected: &str) {
        assert_eq!(average(total, count), expected);
    }

    #[test]
    fn integers_are_grouped_by_thousands() {
        for (number, expected) in [
            (0, "0"),
            (-15, "-15"),
            (999, "999"),
            (1000, "1,000"),
            (-100_000, "-100,000"),
            (1_234_567, "1,234,567"),
            (i128::MIN, "-170,141,183,460,469,231,731,687,303,715,884,105,728"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn averages_have_two_decimals() {
        check_average(450_000, 24, "18,750.00");
        check_average(950, 24, "39.58");
        check_average(1480, 6, "246.67");
        check_average(-30, 3, "-10.00");
        check_average(-2, 3, "-0.67");
        check_average(7, 0, "7.00");
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        check_average(1, 8, "0.12");
        check_average(3, 8, "0.38");
        check_average(1, 200, "0.00");
        check_average(3, 200, "0.02");
        check_average(-3, 200, "-0.02");
        check_average(1999, 2000, "1.00");
    }

    #[test]
    fn an_average_that_rounds_to_zero_has_no_sign() {
        check_average(-1, 1000, "0.00");
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        check_average(
            i128::MIN,
            1,
            "-170,141,183,460,469,231,731,687,303,715,884,105,728.00",
        );
        check_average(i128::MAX, u64::MAX, "9,223,372,036,854,775,808.50");
    }

    proptest! {
        #[test]
        fn an_average_is_within_half_a_cent(total in -10i128.pow(30)..10i128.pow(30), count in 1..=u64::MAX) {
            let cents: i128 = average(total, count).replace([',', '.'], "").parse().unwrap();
            let off = (cents * i128::from(count)).abs_diff(total * 100);
            prop_assert!(off * 2 <= u128::from(count));
        }

        #[test]
        fn grouping_only_adds_commas(number in any::<i128>()) {
            prop_assert_eq!(grouped(number).replace(',', "").parse(), Ok(number));
        }
    }

    #[test]
    fn sizes() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KB"),
            (1536, "1.5 KB"),
            (262_144, "256 KB"),
            (1_048_575, "1023.9 KB"),
            (1_048_576, "1 MB"),
            (5_368_709_120, "5 GB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
