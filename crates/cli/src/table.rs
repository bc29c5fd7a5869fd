//! Columns, as Go's text/tabwriter aligns them.

use unicode_width::UnicodeWidthStr;

/// A cell's narrowest width.
const MIN_WIDTH: usize = 10;
/// Spaces between a column's widest cell and the next column.
const PADDING: usize = 3;

/// Aligns the cells of the lines. A cell ends with a tab; what follows the last tab is not part of a column. A column
/// goes on from line to line as long as the lines have it.
pub(crate) fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH, PADDING)
}

/// The same with other measures.
pub(crate) fn align_with(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let deepest = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..deepest {
        let mut start = 0;
        while start < lines.len() {
            if widths[start].len() <= column {
                start += 1;
                continue;
            }
            let mut end = start;
            while end < lines.len() && widths[end].len() > column {
                end += 1;
            }
            let cells = lines[start..end].iter().map(|cells| width(cells[column]) + padding);
            let widest = cells.max().unwrap_or(0).max(min_width);
            widths[start..end].iter_mut().for_each(|row| row[column] = widest);
            start = end;
        }
    }
    let mut output = String::with_capacity(text.len() * 2);
    for (at, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if at > 0 {
            output.push('\n');
        }
        for (place, cell) in cells.iter().enumerate() {
            output.push_str(cell);
            if let Some(column) = widths.get(place) {
                output.extend(std::iter::repeat_n(' ', column - width(cell)));
            }
        }
    }
    output
}

/// Columns of a terminal: what is East Asian takes two.
fn width(cell: &str) -> usize {
    cell.width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        assert_eq!(align("A\tB\tC\nlonger than\tx\ty\n"), "A             B         C\nlonger than   x         y\n");
        // A line without the column ends it.
        assert_eq!(align("aaaaaaaaaaaa\tb\nplain\nc\td\n"), "aaaaaaaaaaaa   b\nplain\nc         d\n");
        assert_eq!(align(""), "");
        assert_eq!(align("名前は長いです\tx\nabcdefghijklmn\ty\n"), "名前は長いです   x\nabcdefghijklmn   y\n");
    }
}
