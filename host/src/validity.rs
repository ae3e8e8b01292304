//! Whether a certificate's time has come, is over, or is nearly: what nobody notices before clients refuse it.
//!
//! The dates are read by the verifier that clients have too: it looks at them before anything else, and says what they are when they are
//! what it does not like. So it is asked about two moments, and no parser of certificates is needed. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{
    CertificateError, Error, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};

/// A certificate that ends sooner should have been renewed: the usual tools do it a month before. Of one that lives for days, a third is left.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// What is wrong with its dates, as the rest of a sentence; nothing if they are as they should be, or cannot be read.
pub(crate) fn concern(certificate: &CertificateDer<'_>, now: SystemTime) -> Option<String> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    let date = |time: UnixTime| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    // Without roots nothing is ever right: all that counts is whether the dates are what is wrong.
    let wrong_at = |time| {
        let time = UnixTime::since_unix_epoch(time);
        match verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], time, &[]) {
            Err(Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        }
    };
    match (wrong_at(now), wrong_at(now + SOON)) {
        (Some(CertificateError::ExpiredContext { not_after, .. }), _) => {
            Some(format!("has ended on {}: clients refuse it", date(not_after)))
        }
        (Some(CertificateError::NotValidYetContext { not_before, .. }), _) => {
            Some(format!("begins on {}: until then clients refuse it", date(not_before)))
        }
        (_, Some(CertificateError::ExpiredContext { not_after, .. })) => {
            let begin = match wrong_at(Duration::ZERO) {
                Some(CertificateError::NotValidYetContext { not_before, .. }) => not_before.as_secs(),
                _ => 0,
            };
            let (left, all) = (not_after.as_secs() - now.as_secs(), not_after.as_secs() - begin);
            (left < all / 3).then(|| format!("ends soon, on {}: it should have been renewed", date(not_after)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn day(text: &str) -> SystemTime {
        humantime::parse_rfc3339(&format!("{text}T12:00:00Z")).expect("a time")
    }

    #[test]
    fn dates_that_clients_do_not_like_are_told_and_those_that_they_soon_will_not() {
        for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
            let mut params = CertificateParams::new(["test".to_owned()]).expect("a name");
            (params.not_before, params.not_after) = (date_time_ymd(2030, 3, 1), date_time_ymd(2030, 6, 1));
            params.is_ca = is_ca;
            let signed = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
            for (now, told) in [
                ("2030-02-28", Some("begins on 2030-03-01T00:00:00Z: until then clients refuse it")),
                ("2030-03-01", None),
                ("2030-05-17", None),
                ("2030-05-18", Some("ends soon, on 2030-06-01T00:00:00Z: it should have been renewed")),
                ("2030-06-01", Some("has ended on 2030-06-01T00:00:00Z: clients refuse it")),
            ] {
                assert_eq!(concern(signed.der(), day(now)).as_deref(), told, "{now}");
            }
        }
    }

    #[test]
    fn of_a_certificate_that_lives_for_days_the_last_third_is_soon() {
        let mut params = CertificateParams::new(["test".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(2030, 3, 1), date_time_ymd(2030, 3, 7));
        let signed = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        for (now, is_soon) in [("2030-03-01", false), ("2030-03-04", false), ("2030-03-05", true)] {
            assert_eq!(concern(signed.der(), day(now)).is_some(), is_soon, "{now}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_not_for_this_to_tell() {
        assert_eq!(concern(&CertificateDer::from(&b"nonsense"[..]), day("2030-01-01")), None);
    }
}
