//! A planar 4:2:0 image to draw on, in video range BT.601 as decoders assume for small pictures.
//!
//! Shapes are clipped to the image, so no coordinate can be wrong enough to panic.

use super::font;

/// An image: one plane of luma, two of chroma at half size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    width: usize,
    height: usize,
    y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub struct Colour {
    y: u8,
    u: u8,
    v: u8,
}

impl Colour {
    /// From 8-bit RGB (ITU-R BT.601, video range), in fixed point.
    pub const fn rgb(red: u8, green: u8, blue: u8) -> Self {
        let (r, g, b) = (red as i32, green as i32, blue as i32);
        Self {
            y: (((66 * r + 129 * g + 25 * b + 128) >> 8) + 16) as u8,
            u: (((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128) as u8,
            v: (((112 * r - 94 * g - 18 * b + 128) >> 8) + 128) as u8,
        }
    }
}

impl Canvas {
    /// A black image. Odd sizes are made even, which 4:2:0 needs.
    pub fn new(width: usize, height: usize) -> Self {
        let (width, height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        Self {
            width,
            height,
            y: vec![16; width * height],
            u: vec![128; width * height / 4],
            v: vec![128; width * height / 4],
        }
    }

    /// In pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// In pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Luma, then the chroma planes Cb and Cr at half size in both directions.
    pub fn planes(&self) -> (&[u8], &[u8], &[u8]) {
        (&self.y, &self.u, &self.v)
    }

    /// Takes the pixels of an image of the same size.
    pub(super) fn copy_from(&mut self, other: &Canvas) {
        self.y.copy_from_slice(&other.y);
        self.u.copy_from_slice(&other.u);
        self.v.copy_from_slice(&other.v);
    }

    pub(super) fn rectangle(
        &mut self,
        left: usize,
        top: usize,
        width: usize,
        height: usize,
        colour: Colour,
    ) {
        let (left, top) = (left.min(self.width), top.min(self.height));
        let right = left.saturating_add(width).min(self.width);
        let bottom = top.saturating_add(height).min(self.height);
        for row in top..bottom {
            self.y[row * self.width + left..row * self.width + right].fill(colour.y);
        }
        let half = self.width / 2;
        let (from, to) = (left / 2, right.div_ceil(2).max(left / 2));
        for row in top / 2..bottom.div_ceil(2) {
            self.u[row * half + from..row * half + to].fill(colour.u);
            self.v[row * half + from..row * half + to].fill(colour.v);
        }
    }

    /// A filled circle with a soft edge.
    pub(super) fn disc(&mut self, x: f32, y: f32, radius: f32, colour: Colour) {
        let span = |centre: f32, limit: usize| {
            let from = (centre - radius - 1.0).max(0.0) as usize;
            let to = (centre + radius + 2.0).max(0.0) as usize;
            from.min(limit)..to.min(limit)
        };
        let blend = |below: u8, above: u8, part: f32| {
            (f32::from(below) + (f32::from(above) - f32::from(below)) * part) as u8
        };
        for row in span(y, self.height) {
            for column in span(x, self.width) {
                let distance = (column as f32 + 0.5 - x).hypot(row as f32 + 0.5 - y);
                let part = (radius - distance + 0.5).clamp(0.0, 1.0);
                if part == 0.0 {
                    continue;
                }
                let pixel = &mut self.y[row * self.width + column];
                *pixel = blend(*pixel, colour.y, part);
                if row % 2 == 0 && column % 2 == 0 {
                    let index = row / 2 * (self.width / 2) + column / 2;
                    self.u[index] = blend(self.u[index], colour.u, part);
                    self.v[index] = blend(self.v[index], colour.v, part);
                }
            }
        }
    }

    /// Width of a line of text, in pixels.
    pub(super) fn text_width(text: &str, scale: usize) -> usize {
        (text.chars().count() * font::CELL).saturating_sub(1) * scale
    }

    /// Draws a line of text whose dots are squares of `scale` pixels.
    pub(super) fn text(&mut self, x: usize, y: usize, scale: usize, text: &str, colour: Colour) {
        for (index, character) in text.chars().enumerate() {
            let left = x + index * font::CELL * scale;
            for (column, dots) in font::columns(character).into_iter().enumerate() {
                for row in (0..font::ROWS).filter(|row| dots >> row & 1 == 1) {
                    self.rectangle(left + column * scale, y + row * scale, scale, scale, colour);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_and_black_are_the_ends_of_the_video_range() {
        let (white, black) = (Colour::rgb(255, 255, 255), Colour::rgb(0, 0, 0));
        assert_eq!((white.y, white.u, white.v), (235, 128, 128));
        assert_eq!((black.y, black.u, black.v), (16, 128, 128));
    }

    #[test]
    fn shapes_beyond_the_edge_are_clipped() {
        let mut canvas = Canvas::new(64, 36);
        canvas.rectangle(60, 30, 100, 100, Colour::rgb(255, 0, 0));
        canvas.rectangle(1_000, 1_000, 10, 10, Colour::rgb(255, 0, 0));
        canvas.disc(-5.0, 40.0, 20.0, Colour::rgb(255, 0, 0));
        canvas.text(50, 33, 3, "HELLO", Colour::rgb(255, 0, 0));
        assert_eq!(canvas.planes().0.len(), 64 * 36);
    }
}
