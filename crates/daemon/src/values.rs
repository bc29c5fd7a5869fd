//! Values of flags and keys, as Docker writes them.

use wharf_engine::spec::LogConfig;

/// Containers take these over unseen: what makes no sense is refused here, with dockerd's words.
pub(crate) fn check_log(driver: &str, options: &[String]) -> Result<(), String> {
    let pairs = options.iter().map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
    let options = pairs.collect::<Option<_>>().ok_or("invalid log-opt: give KEY=VALUE")?;
    let config = LogConfig { driver: driver.to_owned(), options };
    wharf_engine::log_options::check(&config).map_err(|e| format!("failed to set log opts: {e}"))
}

/// `base=172.30.0.0/16,size=24`.
pub(crate) fn pool(text: &str) -> Result<(String, u8), String> {
    let bad = || format!("invalid default address pool '{text}': give base=CIDR,size=N");
    let (mut base, mut size) = (None, None);
    for pair in text.split(',') {
        match pair.split_once('=') {
            Some(("base", value)) => base = Some(value.to_owned()),
            Some(("size", value)) => size = value.parse().ok(),
            _ => return Err(bad()),
        }
    }
    base.zip(size).ok_or_else(bad)
}

/// `bridge=com.docker.network.driver.mtu=1400`: the driver, and a pair.
pub(crate) fn network_option(text: &str) -> Result<(String, (String, String)), String> {
    let parsed = text.split_once('=').and_then(|(driver, pair)| {
        let (key, value) = pair.split_once('=')?;
        (!driver.is_empty() && !key.is_empty()).then(|| (driver.to_owned(), (key.to_owned(), value.to_owned())))
    });
    parsed.ok_or_else(|| format!("invalid default network option '{text}': give DRIVER=KEY=VALUE"))
}

/// A size as Docker's own flags have it: `512m`, `20GB`; units are powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let bad =
        || format!("invalid storage-max-bytes '{text}': give a number of bytes, or one with a unit, such as 20GB");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().map_err(|_| bad())?;
    let power = match lower[digits..].trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let size = number * 1024f64.powi(power);
    // Less holds no image, and a daemon that can do nothing is nobody's wish.
    if !(1.0..1e18).contains(&size) {
        return Err(bad());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(size as u64)
}
