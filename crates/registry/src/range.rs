//! Parts: of a blob that is asked for, of an upload that is sent.

/// What a `Range` header means for content of `size` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: there is no header, or one that is not understood, or more than one part is wanted.
    Whole,
    /// From the first to before the second.
    Some(u64, u64),
    /// Nothing of it is in the content.
    None,
}

/// Reads `bytes=FIRST-LAST`, `bytes=FIRST-`, `bytes=-COUNT` (RFC 9110, section 14.1.2).
pub(crate) fn part(header: Option<&str>, size: u64) -> Part {
    let Some((first, last)) = header.and_then(|text| text.trim().strip_prefix("bytes=")?.split_once('-')) else {
        return Part::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        return match number(last) {
            Some(0) => Part::None,
            Some(_) if size == 0 => Part::None,
            Some(count) => Part::Some(size.saturating_sub(count), size),
            None => Part::Whole,
        };
    }
    let end = if last.is_empty() { Some(size) } else { number(last).map(|last| last.saturating_add(1)) };
    match (number(first), end) {
        (Some(first), Some(end)) if first < end || last.is_empty() => {
            if first >= size {
                Part::None
            } else {
                Part::Some(first, end.min(size))
            }
        }
        // RFC 9110 (14.1.1) lets such a one be passed over; clients that test for ranges expect to hear of it.
        (Some(_), Some(_)) => Part::None,
        _ => Part::Whole,
    }
}

/// Reads the `Content-Range` of an upload's part, `FIRST-LAST` in the distribution API, `bytes FIRST-LAST/…` elsewhere:
/// where it begins, and its bytes.
pub(crate) fn content_range(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches(['=', ' ']));
    let (first, last) = text.split('/').next()?.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    Some((first, last.checked_add(1)?.checked_sub(first)?))
}

fn number(text: &str) -> Option<u64> {
    // `parse` would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_to_the_content() {
        for (header, expected) in [
            ("bytes=0-0", Part::Some(0, 1)),
            ("bytes=2-4", Part::Some(2, 5)),
            ("bytes=8-100", Part::Some(8, 10)),
            ("bytes=5-", Part::Some(5, 10)),
            ("bytes=-3", Part::Some(7, 10)),
            ("bytes=-30", Part::Some(0, 10)),
            ("bytes=10-", Part::None),
            ("bytes=10-12", Part::None),
            ("bytes=-0", Part::None),
            ("bytes=4-2", Part::None),
            ("bytes=0-1,4-5", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("items=0-1", Part::Whole),
            ("bytes=-", Part::Whole),
        ] {
            assert_eq!(part(Some(header), 10), expected, "{header}");
        }
        assert_eq!((part(None, 10), part(Some("bytes=0-"), 0)), (Part::Whole, Part::None));
    }

    #[test]
    fn parts_of_uploads_are_read() {
        assert_eq!(content_range("0-99"), Some((0, 100)));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 5)));
        assert_eq!(content_range("bytes=5-9"), Some((5, 5)));
        for bad in ["", "5", "9-5", "a-b", "-5", "5-", "0-18446744073709551615"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
