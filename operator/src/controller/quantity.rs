//! Kubernetes quantities ("500m", "2Gi") as numbers, to count cores and to see that two spellings
//! are the same amount. Pure.

/// The amount, in the base unit. `None` if `text` is no quantity.
pub fn parse(text: &str) -> Option<f64> {
    let split = text
        .char_indices()
        .find(|(_, c)| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .map_or(text.len(), |(at, _)| at);
    let (number, suffix) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0f64.powi(2),
        "Gi" => 1024.0f64.powi(3),
        "Ti" => 1024.0f64.powi(4),
        "Pi" => 1024.0f64.powi(5),
        "Ei" => 1024.0f64.powi(6),
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn spellings_of_one_amount_are_equal() {
        assert_eq!(parse("500m"), parse("0.5"));
        assert_eq!(parse("1024Mi"), parse("1Gi"));
        assert_eq!(parse("2e3"), parse("2k"));
        assert_eq!(parse("half"), None);
    }
}
