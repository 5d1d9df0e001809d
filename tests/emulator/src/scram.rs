//! Checks a password against what Postgres stores of it.
//!
//! Neon's control plane learns a password that is set with SQL, because Neon's Postgres tells it.
//! Ours does not; so the emulator tries the texts of the request against the stored verifier.
//!
//! Source: RFC 5802; PostgreSQL, `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Returns whether a text is the password of a verifier.
pub(crate) fn is_password(verifier: &str, text: &str) -> bool {
    let parts: Vec<&str> = verifier.split('$').collect();
    let [_, head, keys] = parts.as_slice() else { return false };
    let (Some((iterations, salt)), Some((stored, _))) =
        (head.split_once(':'), keys.split_once(':'))
    else {
        return false;
    };
    let (Ok(iterations), Ok(salt), Ok(stored)) =
        (iterations.parse::<u32>(), BASE64.decode(salt), BASE64.decode(stored))
    else {
        return false;
    };
    let salted = salted(text.as_bytes(), &salt, iterations);
    let client = mac(&salted, b"Client Key");
    Sha256::digest(client).as_slice() == stored.as_slice()
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn salted(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut first = salt.to_vec();
    first.extend_from_slice(&1_u32.to_be_bytes());
    let mut block = mac(password, &first);
    let mut result = block;
    for _ in 1..iterations {
        block = mac(password, &block);
        for (byte, other) in result.iter_mut().zip(block) {
            *byte ^= other;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_made_by_the_library_is_recognised() {
        let verifier = postgres_protocol::password::scram_sha_256(b"open sesame");
        assert!(is_password(&verifier, "open sesame"));
        assert!(!is_password(&verifier, "open says me"));
    }
}
