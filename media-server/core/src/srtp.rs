//! SRTP for media packets, in place and without allocation: keys, sealing, opening (RFC 3711,
//! RFC 7714, RFC 5764 §4.2).
//!
//! [`Sealer`] is the only code that encrypts RTP, [`Opener`] the only one that decrypts it;
//! [`ControlSealer`] and [`ControlOpener`] are the same for RTCP.

mod control;
mod open;
mod seal;

pub use control::{ControlOpener, ControlSealer};
pub use open::{OpenError, Opened, Opener};
pub use seal::{SealError, Sealer};

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{constant_time, hmac};

/// Bytes that the widest profile adds to a packet.
pub const MAX_TAG: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    AeadAes128Gcm,
    Aes128CmHmacSha1_80,
}

impl Profile {
    fn salt_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm => 12,
            Profile::Aes128CmHmacSha1_80 => 14,
        }
    }

    /// Bytes that DTLS has to export: two keys and two salts.
    pub fn keying_material_len(self) -> usize {
        2 * (KEY_LEN + self.salt_len())
    }

    pub fn tag_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm => 16,
            Profile::Aes128CmHmacSha1_80 => 10,
        }
    }
}

const KEY_LEN: usize = 16;

#[derive(Debug, thiserror::Error)]
#[error("keying material of {len} bytes does not fit the SRTP profile")]
pub struct KeyError {
    len: usize,
}

/// Everything that one handshake keyed: `ours` encrypts, `theirs` decrypts.
pub struct Keys {
    pub profile: Profile,
    pub(crate) ours: SessionCipher,
    pub(crate) theirs: SessionCipher,
    pub(crate) rtcp_out: ControlSealer,
    pub(crate) rtcp_in: ControlOpener,
}

impl Keys {
    /// Splits exported keying material (RFC 5764 §4.2) for one side of the association.
    ///
    /// # Errors
    /// [`KeyError`] if the material has the wrong length.
    pub fn new(profile: Profile, material: &[u8], is_client: bool) -> Result<Self, KeyError> {
        let error = KeyError {
            len: material.len(),
        };
        if material.len() != profile.keying_material_len() {
            return Err(error);
        }
        let (keys, salts) = material.split_at(2 * KEY_LEN);
        let (client_key, server_key) = keys.split_at(KEY_LEN);
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        let (ours, theirs) = if is_client {
            ((client_key, client_salt), (server_key, server_salt))
        } else {
            ((server_key, server_salt), (client_key, client_salt))
        };
        let cipher = |(key, salt), labels| SessionCipher::derive(profile, key, salt, labels);
        let all = || {
            Some(Keys {
                profile,
                ours: cipher(ours, RTP_LABELS)?,
                theirs: cipher(theirs, RTP_LABELS)?,
                rtcp_out: ControlSealer::new(cipher(ours, RTCP_LABELS)?),
                rtcp_in: ControlOpener::new(cipher(theirs, RTCP_LABELS)?),
            })
        };
        all().ok_or(error)
    }
}

/// Session keys of one direction, for RTP or for RTCP.
pub(crate) enum SessionCipher {
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
    CmSha1 {
        key: Box<EncryptingKey>,
        salt: [u8; 14],
        auth: Box<hmac::Key>,
    },
}

#[derive(Debug)]
pub(crate) struct CipherError;

impl SessionCipher {
    fn derive(
        profile: Profile,
        master_key: &[u8],
        master_salt: &[u8],
        labels: Labels,
    ) -> Option<Self> {
        let mut key = [0; KEY_LEN];
        derive(master_key, master_salt, labels.encryption, &mut key)?;
        match profile {
            Profile::AeadAes128Gcm => {
                let mut salt = [0; 12];
                derive(master_key, master_salt, labels.salt, &mut salt)?;
                let key = LessSafeKey::new(UnboundKey::new(&aead::AES_128_GCM, &key).ok()?);
                Some(SessionCipher::Gcm { key, salt })
            }
            Profile::Aes128CmHmacSha1_80 => {
                let mut salt = [0; 14];
                let mut auth = [0; 20];
                derive(master_key, master_salt, labels.salt, &mut salt)?;
                derive(master_key, master_salt, labels.auth, &mut auth)?;
                let key =
                    EncryptingKey::ctr(UnboundCipherKey::new(&cipher::AES_128, &key).ok()?).ok()?;
                let key = Box::new(key);
                let auth = Box::new(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth));
                Some(SessionCipher::CmSha1 { key, salt, auth })
            }
        }
    }

    pub(crate) fn tag_len(&self) -> usize {
        match self {
            SessionCipher::Gcm { .. } => 16,
            SessionCipher::CmSha1 { .. } => 10,
        }
    }

    /// Encrypts `packet[header..]` but for the tag, which goes into its last bytes.
    fn seal(
        &self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        header: usize,
    ) -> Result<(), CipherError> {
        let body = packet
            .len()
            .checked_sub(self.tag_len())
            .filter(|b| *b >= header)
            .ok_or(CipherError)?;
        let (text, tag) = packet.split_at_mut(body);
        match self {
            SessionCipher::Gcm { key, salt } => {
                let (header, payload) = text.split_at_mut(header);
                let nonce = Nonce::assume_unique_for_key(gcm_iv(salt, ssrc, index));
                let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
                tag.copy_from_slice(sealed.map_err(|_| CipherError)?.as_ref());
            }
            SessionCipher::CmSha1 { key, salt, auth } => {
                keystream(key, cm_iv(salt, ssrc, index), &mut text[header..])?;
                tag.copy_from_slice(&cm_tag(auth, text, roll_over(index))[..10]);
            }
        }
        Ok(())
    }

    /// Verifies and decrypts in place; returns the end of the payload.
    fn open(
        &self,
        ssrc: u32,
        index: u64,
        packet: &mut [u8],
        header: usize,
    ) -> Result<usize, CipherError> {
        let body = packet
            .len()
            .checked_sub(self.tag_len())
            .filter(|b| *b >= header)
            .ok_or(CipherError)?;
        match self {
            SessionCipher::Gcm { key, salt } => {
                let (header, payload) = packet.split_at_mut(header);
                let nonce = Nonce::assume_unique_for_key(gcm_iv(salt, ssrc, index));
                key.open_in_place(nonce, Aad::from(&*header), payload)
                    .map_err(|_| CipherError)?;
            }
            SessionCipher::CmSha1 { key, salt, auth } => {
                let (text, tag) = packet.split_at_mut(body);
                let expected = cm_tag(auth, text, roll_over(index));
                constant_time::verify_slices_are_equal(&expected[..10], tag)
                    .map_err(|_| CipherError)?;
                keystream(key, cm_iv(salt, ssrc, index), &mut text[header..])?;
            }
        }
        Ok(body)
    }
}

/// What tells the session keys of one master key apart (RFC 3711 §4.3.1, §4.3.2).
#[derive(Debug, Clone, Copy)]
struct Labels {
    encryption: u8,
    auth: u8,
    salt: u8,
}

const RTP_LABELS: Labels = Labels {
    encryption: 0,
    auth: 1,
    salt: 2,
};
const RTCP_LABELS: Labels = Labels {
    encryption: 3,
    auth: 4,
    salt: 5,
};

/// AES-CM key derivation at index 0 (RFC 3711 §4.3.3); a 96-bit salt is padded to 112 bits on the
/// right (RFC 7714 §11).
fn derive(master_key: &[u8], master_salt: &[u8], label: u8, out: &mut [u8]) -> Option<()> {
    let mut iv = [0; 16];
    iv[..master_salt.len()].copy_from_slice(master_salt);
    iv[7] ^= label;
    out.fill(0);
    let key = EncryptingKey::ctr(UnboundCipherKey::new(&cipher::AES_128, master_key).ok()?).ok()?;
    keystream(&key, iv, out).ok()
}

fn keystream(key: &EncryptingKey, iv: [u8; 16], text: &mut [u8]) -> Result<(), CipherError> {
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    key.less_safe_encrypt(text, context)
        .map(drop)
        .map_err(|_| CipherError)
}

/// RFC 3711 §4.1.1: salt, SSRC and index, 16 bits above the block counter.
fn cm_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    iv[4..8]
        .iter_mut()
        .zip(ssrc.to_be_bytes())
        .for_each(|(b, s)| *b ^= s);
    iv[8..14]
        .iter_mut()
        .zip(&index.to_be_bytes()[2..])
        .for_each(|(b, i)| *b ^= i);
    iv
}

/// RFC 7714 §8.1, and §9.1 for the 31-bit index of RTCP.
fn gcm_iv(salt: &[u8; 12], ssrc: u32, index: u64) -> [u8; 12] {
    let mut iv = *salt;
    iv[2..6]
        .iter_mut()
        .zip(ssrc.to_be_bytes())
        .for_each(|(b, s)| *b ^= s);
    iv[6..12]
        .iter_mut()
        .zip(&index.to_be_bytes()[2..])
        .for_each(|(b, i)| *b ^= i);
    iv
}

/// The packet and the four bytes behind it are authenticated: of RTP the roll-over counter, of RTCP
/// the word with its index (RFC 3711 §4.2).
fn cm_tag(auth: &hmac::Key, text: &[u8], behind: [u8; 4]) -> [u8; 20] {
    let mut mac = hmac::Context::with_key(auth);
    mac.update(text);
    mac.update(&behind);
    let mut tag = [0; 20];
    tag.copy_from_slice(mac.sign().as_ref());
    tag
}

fn roll_over(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// Which of the last 1024 indices were used. Sealing and opening share it: one refuses to use an
/// index twice, the other to accept it twice.
#[derive(Debug, Default)]
struct IndexWindow {
    /// Highest used index plus one; 0 while none was.
    end: u64,
    used: [u64; WINDOW / 64],
}

const WINDOW: usize = 1024;

impl IndexWindow {
    fn is_free(&self, index: u64) -> bool {
        if index >= self.end {
            return true;
        }
        self.end - index <= WINDOW as u64 && self.used[slot(index)] & bit(index) == 0
    }

    fn mark(&mut self, index: u64) {
        if index >= self.end {
            if index - self.end >= WINDOW as u64 {
                self.used = [0; WINDOW / 64];
            } else {
                (self.end..index).for_each(|skipped| self.used[slot(skipped)] &= !bit(skipped));
            }
            self.end = index + 1;
        }
        self.used[slot(index)] |= bit(index);
    }
}

fn slot(index: u64) -> usize {
    (index / 64) as usize % (WINDOW / 64)
}

fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests;
