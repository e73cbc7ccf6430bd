//! A live test picture: colour bars, a clock in UTC to the millisecond, a ball that never stops.
//!
//! The clock shows when the frame was drawn, so that a glance at a player beside a good clock
//! shows the delay; the ball shows a frame that is missing. Drawing knows no codec and no network;
//! `encoder` compresses, `feed` publishes. The demo device and `media-test-publisher` call it.

mod canvas;
mod encoder;
mod feed;
mod font;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use canvas::Canvas;
pub use encoder::{EncodeError, EncodedFrame, PictureEncoder};
pub use feed::{Feed, FeedEvent};

use canvas::Colour;

/// Size and rhythm of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureOptions {
    pub width: u32,
    pub height: u32,
    pub frames_per_second: u32,
    /// A short line in the picture, in capitals; 24 characters fit.
    pub title: String,
}

impl Default for PictureOptions {
    fn default() -> Self {
        Self {
            width: 640,
            height: 360,
            frames_per_second: 25,
            title: "LIVE TEST PICTURE".to_owned(),
        }
    }
}

/// Draws the frames. Everything scales with the height.
pub struct TestPicture {
    backdrop: Canvas,
    frame: Canvas,
    /// Size of one step of the layout, a 180th of the height.
    unit: usize,
}

const SLATE: Colour = Colour::rgb(17, 24, 39);
const PALE: Colour = Colour::rgb(226, 232, 240);
const MUTED: Colour = Colour::rgb(125, 140, 162);
const ACCENT: Colour = Colour::rgb(45, 212, 191);
const TRACK: Colour = Colour::rgb(38, 50, 71);
const BALL: Colour = Colour::rgb(248, 250, 252);

/// The seven bars of a test card, a little softer than at full strength.
const BARS: [Colour; 7] = [
    Colour::rgb(203, 205, 209),
    Colour::rgb(214, 190, 66),
    Colour::rgb(52, 182, 190),
    Colour::rgb(64, 170, 96),
    Colour::rgb(178, 82, 164),
    Colour::rgb(200, 70, 66),
    Colour::rgb(62, 84, 188),
];

/// Height of the bars, in layout steps of 180.
const BARS_HEIGHT: usize = 96;

impl TestPicture {
    /// Prepares what stays the same in every frame.
    pub fn new(options: &PictureOptions) -> Self {
        let (width, height) = (options.width as usize, options.height as usize);
        let mut backdrop = Canvas::new(width, height);
        let unit = (height / 180).max(1);
        backdrop.rectangle(0, 0, width, height, SLATE);
        let bars_height = BARS_HEIGHT * unit;
        for (index, colour) in BARS.into_iter().enumerate() {
            let (left, right) = (index * width / 7, (index + 1) * width / 7);
            backdrop.rectangle(left, 0, right - left, bars_height, colour);
        }
        for column in 0..width {
            let level = (column * 255 / width) as u8;
            let grey = Colour::rgb(level, level, level);
            backdrop.rectangle(column, bars_height, 1, 6 * unit, grey);
        }
        let title: String = options.title.chars().take(24).collect();
        backdrop.text(MARGIN * unit, 112 * unit, unit, &title, MUTED);
        let label = "UTC";
        let label_width = Canvas::text_width(label, unit);
        backdrop.text(
            width.saturating_sub(MARGIN * unit + label_width),
            112 * unit,
            unit,
            label,
            MUTED,
        );
        Self {
            frame: backdrop.clone(),
            backdrop,
            unit,
        }
    }

    /// Draws the frame of that moment.
    pub fn draw(&mut self, now: SystemTime) -> &Canvas {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.frame.copy_from(&self.backdrop);
        let (unit, width) = (self.unit, self.frame.width());

        let clock = clock(since_epoch);
        // Twelve cells of six columns, the last without its gap.
        let scale = ((width - 2 * MARGIN * unit) / 71).max(1);
        let left = (width - Canvas::text_width(&clock, scale)) / 2;
        self.frame.text(left, 128 * unit, scale, &clock, PALE);

        let (track, thickness) = (width - 2 * MARGIN * unit, 3 * unit);
        let done = track * since_epoch.subsec_millis() as usize / 1_000;
        let top = 168 * unit;
        self.frame
            .rectangle(MARGIN * unit, top, track, thickness, TRACK);
        self.frame
            .rectangle(MARGIN * unit, top, done, thickness, ACCENT);

        let radius = 11 * unit;
        // There and back in four seconds, and up and down in one and a half.
        let across = swing(since_epoch, Duration::from_millis(4_000));
        let down = swing(since_epoch, Duration::from_millis(1_500));
        let room_x = (width - 2 * radius) as f32;
        let room_y = (BARS_HEIGHT * unit - 2 * radius) as f32;
        // A fall is fast at the bottom: the square of the swing, upside down.
        let height = 1.0 - (2.0 * down - 1.0).powi(2);
        self.frame.disc(
            radius as f32 + across * room_x,
            radius as f32 + (1.0 - height) * room_y,
            radius as f32,
            BALL,
        );
        &self.frame
    }
}

/// Free space left and right, in layout steps.
const MARGIN: usize = 14;

/// Goes from 0 to 1 and back within `period`, evenly.
fn swing(since_epoch: Duration, period: Duration) -> f32 {
    let phase = (since_epoch.as_micros() % period.as_micros()) as f32 / period.as_micros() as f32;
    1.0 - (2.0 * phase - 1.0).abs()
}

/// `hh:mm:ss.mmm` of the day.
fn clock(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs() % 86_400;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        since_epoch.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_clock_reads_hours_to_milliseconds() {
        assert_eq!(clock(Duration::from_millis(86_399_007)), "23:59:59.007");
        assert_eq!(clock(Duration::from_secs(86_400)), "00:00:00.000");
    }

    #[test]
    fn one_millisecond_later_the_picture_is_another() {
        let mut picture = TestPicture::new(&PictureOptions::default());
        let first = picture.draw(at(1_000)).clone();
        assert_eq!(&first, picture.draw(at(1_000)));
        assert_ne!(&first, picture.draw(at(1_001)));
    }

    #[test]
    fn every_size_is_drawn_within_its_bounds() {
        for (width, height) in [(320, 180), (640, 360), (1_280, 720), (1_920, 1_080)] {
            let mut picture = TestPicture::new(&PictureOptions {
                width,
                height,
                ..PictureOptions::default()
            });
            for milliseconds in (0..4_000).step_by(125) {
                picture.draw(at(milliseconds));
            }
        }
    }
}
