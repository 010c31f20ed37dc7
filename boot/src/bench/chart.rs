//! The figures as bars: what each kernel needs, as a part of what the fastest lean Linux needs.

use super::figures::{self, Column};
use super::operations::{self, Operation};
use super::svg::{Anchor, Drawing};

const LEFT: f64 = 380.0;
const RIGHT: f64 = 60.0;
/// Length of 100 %.
const WHOLE: f64 = 400.0;
const TOP: f64 = 60.0;
const BAR: f64 = 9.0;
const GAP: f64 = 10.0;
/// Bars longer than this are cut off.
const LONGEST: f64 = 2.0;
const COLOURS: [&str; 5] = ["#d1495b", "#30638e", "#7fb2d9", "#5a5a5a", "#b4b4b4"];

/// Draws the operations that the first column has and a lean Linux too.
pub fn draw(columns: &[Column]) -> String {
    let shown: Vec<(&Operation, u64)> = operations::ALL
        .iter()
        .filter(|operation| figures::ratio(columns, operation.name).is_some())
        .filter_map(|operation| Some((operation, figures::to_beat(columns, operation.name)?)))
        .collect();
    let group = BAR * columns.len() as f64 + GAP;
    let bottom = TOP + group * shown.len() as f64;
    let mut drawing = Drawing::new(LEFT + WHOLE * LONGEST + RIGHT, bottom + 30.0);
    legend(&mut drawing, columns);
    for percent in (0..=200).step_by(50) {
        let x = LEFT + WHOLE * f64::from(percent) / 100.0;
        drawing.line(&[(x, TOP - 4.0), (x, bottom)], "#dddddd", 1.0);
        drawing.text(x, bottom + 16.0, Anchor::Middle, &format!("{percent} %"));
    }
    for (at, (operation, whole)) in shown.into_iter().enumerate() {
        let y = TOP + group * at as f64;
        let middle = y + BAR * columns.len() as f64 / 2.0 + 4.0;
        drawing.text(LEFT - 8.0, middle, Anchor::End, operation.what);
        for (place, column) in columns.iter().enumerate() {
            let Some(&median) = column.medians.get(operation.name) else {
                continue;
            };
            let part = (median as f64 / whole as f64).min(LONGEST);
            let y = y + BAR * place as f64;
            drawing.rectangle(LEFT, y, WHOLE * part, BAR - 1.0, colour(place));
            if place == 0 {
                drawing.text(
                    LEFT + WHOLE * part + 4.0,
                    y + BAR,
                    Anchor::Start,
                    &median.to_string(),
                );
            }
        }
    }
    drawing.finish()
}

fn legend(drawing: &mut Drawing, columns: &[Column]) {
    drawing.text(
        8.0,
        20.0,
        Anchor::Start,
        "Instructions per operation; 100 % is the fastest lean Linux",
    );
    let mut x = 8.0;
    for (place, column) in columns.iter().enumerate() {
        drawing.rectangle(x, 30.0, 12.0, 12.0, colour(place));
        let heading = column.heading();
        drawing.text(x + 16.0, 41.0, Anchor::Start, &heading);
        x += 40.0 + 7.5 * heading.len() as f64;
    }
}

fn colour(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_figure() {
        let column = |lean, median| Column {
            lean,
            medians: [("getpid".into(), median)].into(),
            ..Column::default()
        };
        let text = draw(&[column(false, 100), column(true, 400)]);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(text.contains(r#"width="100.0" height="8.0""#), "{text}");
        assert!(text.contains(r#"width="400.0" height="8.0""#), "{text}");
    }
}
