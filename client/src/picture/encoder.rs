//! H.264 for the test picture: constrained baseline, no frame held back, one thread.

use std::time::Duration;

use bytes::Bytes;
use openh264::OpenH264API;
use openh264::encoder::{
    Complexity, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, Profile,
    RateControlMode, UsageType,
};
use openh264::formats::YUVSlices;

use super::{Canvas, PictureOptions};

/// Seconds between keyframes that nobody asked for.
const KEYFRAME_SECONDS: u32 = 2;

/// Why a frame could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("failed to start the H.264 encoder")]
    Start { source: openh264::Error },
    #[error("failed to encode a frame of {width}x{height}")]
    Encode {
        width: usize,
        height: usize,
        source: openh264::Error,
    },
}

/// An encoded frame as an Annex B byte stream, with its parameter sets if it is a keyframe.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    pub data: Bytes,
    pub keyframe: bool,
}

/// The encoder of one stream. Not for an async task: a frame takes milliseconds.
pub struct PictureEncoder {
    encoder: Encoder,
}

impl PictureEncoder {
    /// Starts the encoder.
    ///
    /// # Errors
    /// [`EncodeError::Start`] if the library refuses its configuration.
    pub fn new(options: &PictureOptions) -> Result<Self, EncodeError> {
        let config = EncoderConfig::new()
            .profile(Profile::Baseline)
            .usage_type(UsageType::CameraVideoRealTime)
            // The same quality for every frame: without noise in the picture the rate stays low.
            .rate_control_mode(RateControlMode::Off)
            .max_frame_rate(FrameRate::from_hz(options.frames_per_second as f32))
            // A skipped frame would stop the clock.
            .skip_frames(false)
            .complexity(Complexity::Low)
            .num_threads(1)
            .scene_change_detect(false)
            .intra_frame_period(IntraFramePeriod::from_num_frames(
                KEYFRAME_SECONDS * options.frames_per_second,
            ));
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|source| EncodeError::Start { source })?;
        Ok(Self { encoder })
    }

    /// Encodes the picture; `at` is its time since the first one.
    ///
    /// # Errors
    /// [`EncodeError::Encode`]; the next frame may work again.
    pub fn encode(
        &mut self,
        canvas: &Canvas,
        at: Duration,
        keyframe: bool,
    ) -> Result<EncodedFrame, EncodeError> {
        if keyframe {
            self.encoder.force_intra_frame();
        }
        let (width, height) = (canvas.width(), canvas.height());
        let planes = YUVSlices::new(
            canvas.planes(),
            (width, height),
            (width, width / 2, width / 2),
        );
        let timestamp = openh264::Timestamp::from_millis(at.as_millis() as u64);
        let stream = self
            .encoder
            .encode_at(&planes, timestamp)
            .map_err(|source| EncodeError::Encode {
                width,
                height,
                source,
            })?;
        Ok(EncodedFrame {
            keyframe: matches!(stream.frame_type(), FrameType::IDR),
            data: stream.to_vec().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::picture::TestPicture;

    #[test]
    fn a_keyframe_comes_first_and_on_demand_and_brings_its_parameter_sets() {
        let options = PictureOptions::default();
        let mut picture = TestPicture::new(&options);
        let mut encoder = PictureEncoder::new(&options).expect("an encoder");
        let mut keyframes = Vec::new();
        for index in 0..20u32 {
            let at = Duration::from_millis(u64::from(index) * 40);
            let canvas = picture.draw(UNIX_EPOCH + at);
            let frame = encoder.encode(canvas, at, index == 10).expect("a frame");
            assert!(!frame.data.is_empty(), "frame {index} was skipped");
            if frame.keyframe {
                assert_eq!(frame.data[4] & 0x1f, 7, "a keyframe begins with an SPS");
                keyframes.push(index);
            }
        }
        assert_eq!(keyframes, [0, 10]);
    }
}
