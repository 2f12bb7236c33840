//! Certificates of an authority of our own.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use std::path::{Path, PathBuf};

/// Somebody whom one may trust, or not.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Writes its own certificate.
    pub fn write(&self, file: PathBuf) -> PathBuf {
        std::fs::write(&file, &self.pem).expect("a file");
        file
    }

    /// A certificate of somebody called `name`, and its key.
    pub fn signs(&self, name: &str, organisation: &str, valid: Valid) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        // In this order, it is CN=name,O=organisation to MongoDB.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (from, to) = match valid {
            Valid::Now => (2020, 2040),
            Valid::NotAnyMore => (2019, 2020),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Certificate { pem: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Whether it is in date.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Valid {
    Now,
    NotAnyMore,
}

pub struct Certificate {
    pem: String,
    key: String,
}

impl Certificate {
    /// Writes `NAME.crt`, `NAME.key`, and `NAME.pem`, which is both.
    pub fn write(&self, folder: &Path, name: &str) {
        let write = |ending: &str, text: &str| {
            std::fs::write(folder.join(format!("{name}.{ending}")), text).expect("a file");
        };
        write("crt", &self.pem);
        write("key", &self.key);
        write("pem", &format!("{}{}", self.pem, self.key));
    }
}
