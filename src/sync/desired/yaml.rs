//! spike
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// x
#[derive(Debug)]
pub enum Tree {
    /// x
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
    /// x
    List(Vec<Spanned<Tree>>),
    /// x
    Scalar(String),
}
struct V;
impl<'de> Visitor<'de> for V {
    type Value = Tree;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("yaml") }
    fn visit_bool<E>(self, b: bool) -> Result<Tree, E> { Ok(Tree::Scalar(format!("bool {b}"))) }
    fn visit_i64<E>(self, b: i64) -> Result<Tree, E> { Ok(Tree::Scalar(format!("i {b}"))) }
    fn visit_u64<E>(self, b: u64) -> Result<Tree, E> { Ok(Tree::Scalar(format!("u {b}"))) }
    fn visit_f64<E>(self, b: f64) -> Result<Tree, E> { Ok(Tree::Scalar(format!("f {b}"))) }
    fn visit_str<E>(self, b: &str) -> Result<Tree, E> { Ok(Tree::Scalar(format!("s {b}"))) }
    fn visit_unit<E>(self) -> Result<Tree, E> { Ok(Tree::Scalar("null".into())) }
    fn visit_none<E>(self) -> Result<Tree, E> { Ok(Tree::Scalar("null".into())) }
    fn visit_map<A: MapAccess<'de>>(self, mut a: A) -> Result<Tree, A::Error> {
        let mut out = vec![];
        while let Some(k) = a.next_key::<Spanned<String>>()? { out.push((k, a.next_value()?)); }
        Ok(Tree::Map(out))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut a: A) -> Result<Tree, A::Error> {
        let mut out = vec![];
        while let Some(v) = a.next_element()? { out.push(v); }
        Ok(Tree::List(out))
    }
}
impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Tree, D::Error> { d.deserialize_any(V) }
}
#[cfg(test)]
mod tests {
    use super::*;
    fn show(text: &str, t: &Spanned<Tree>, depth: usize) {
        let s = t.referenced.span();
        let lit = s.byte_offset().zip(s.byte_len()).map(|(o, l)| &text[o as usize..(o + l) as usize]);
        match &t.value {
            Tree::Map(m) => { println!("{:d$}map {}:{}", "", t.referenced.line(), t.referenced.column(), d=depth); for (k, v) in m {
                println!("{:d$}{} @{}:{}", "", k.value, k.referenced.line(), k.referenced.column(), d=depth);
                show(text, v, depth+2) } }
            Tree::List(l) => for v in l { show(text, v, depth+2) },
            Tree::Scalar(x) => println!("{:d$}{} @{}:{} lit={:?}", "", x, t.referenced.line(), t.referenced.column(), lit, d=depth),
        }
    }
    #[test]
    fn spike() {
        for text in ["a: 1\nb: {c: 'x', d: \"y\\n\", 0777: 0777, e: 1_000, f: 1e3, g: 12:30, h: off, i: ~, j:, k: !!str 010}\né: ö\nl: |\n  multi\n  line\nm: &x 16MB  # c\nn: *x\nbase: &b {q: 1}\nmm:\n  <<: *b\n  q: 2\n  z: plain text with spaces   # tail\n",
          "a: [1,\n", "a: 1\na: 2\n", "", "# only comment\n", "a: \"\\0\"\n", "x\u{0}y: 1", "- 1\n- 2", "a: 2026-12-01\nb: !foo bar\n? [x]\n: y\n", "%YAML 1.2\n---\na: 1", "a: 1\n...\nb: 2\n"] {
            println!("=== {text:?}");
            let o = serde_saphyr::options!{ with_snippet: false, strict_booleans: true };
            match serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, o) {
                Ok(t) => show(text, &t, 0),
                Err(e) => println!("ERR {:?} {}", e.location().map(|l| (l.line(), l.column())), e),
            }
            match serde_yaml::from_str::<serde_yaml::Value>(text) {
                Ok(v) => println!("serde_yaml {v:?}"), Err(e) => println!("SY ERR {:?} {e}", e.location()),
            }
        }
    }
}
