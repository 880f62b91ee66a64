//! The function that is profiled: a web shop that does three kinds of work, all of it for real.
//!
//! The amounts of work are fixed, the CPU it takes is not: what the profiles say was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;

use super::profiler::Profiler;

/// What an invocation asks the shop to do, and how much of it.
#[derive(Clone, Copy)]
pub enum Event {
    Checkout { items: u64 },
    Search { words: u64 },
    Report { orders: u64 },
}

impl Event {
    /// The event called `kind`.
    pub fn of(kind: &str, amount: u64) -> Self {
        match kind {
            "checkout" => Self::Checkout { items: amount },
            "search" => Self::Search { words: amount },
            "report" => Self::Report { orders: amount },
            _ => panic!("{kind:?} is no event"),
        }
    }
}

pub fn handler(profiler: &mut Profiler, event: Event) {
    match event {
        Event::Checkout { items } => profiler.call(checkout, items),
        Event::Search { words } => profiler.call(search, words),
        Event::Report { orders } => profiler.call(report, orders),
    }
}

fn checkout(profiler: &mut Profiler, items: u64) {
    profiler.call(price_cart, items);
    profiler.call(render_invoice, items / 8);
}

fn price_cart(profiler: &mut Profiler, items: u64) {
    let total: u64 = (0..items * 20_000)
        .map(|item| black_box(item).wrapping_mul(97) % 1009)
        .sum();
    black_box(total);
    profiler.call(apply_discounts, items);
    profiler.call(add_taxes, items);
}

fn apply_discounts(_: &mut Profiler, items: u64) {
    let rules = 0..items * 8_000;
    black_box(rules.fold(1.0, |price: f64, rule| {
        (black_box(price) * 1.01).sqrt() + (rule % 7) as f64
    }));
}

fn add_taxes(_: &mut Profiler, items: u64) {
    let cents = (0..items * 9_000).map(|item| black_box(item) * 19 / 119);
    black_box(cents.max());
}

fn render_invoice(profiler: &mut Profiler, lines: u64) {
    let mut page = String::new();
    profiler.call(format_lines, (&mut page, lines));
    profiler.call(escape_html, page);
}

fn format_lines(_: &mut Profiler, (page, lines): (&mut String, u64)) {
    for line in 0..lines * 1_000 {
        let _ = write!(
            page,
            "<tr><td>{line}</td><td>{:.2}</td></tr>",
            line as f64 / 7.0
        );
    }
}

fn escape_html(_: &mut Profiler, page: String) {
    black_box(page.replace('<', "&lt;"));
}

fn search(profiler: &mut Profiler, words: u64) {
    profiler.call(build_index, words);
    profiler.call(rank_results, words / 2);
}

fn build_index(profiler: &mut Profiler, words: u64) {
    let mut names = Vec::new();
    profiler.call(tokenize, (&mut names, words));
    let mut index: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, name) in names.into_iter().enumerate() {
        index.entry(name).or_default().push(place);
    }
    black_box(index);
}

fn tokenize(_: &mut Profiler, (names, words): (&mut Vec<String>, u64)) {
    let word = |number: u64| format!("{:03x}", number.wrapping_mul(2_654_435_761) % 1999);
    names.extend((0..words * 150).map(word));
}

fn rank_results(profiler: &mut Profiler, results: u64) {
    let mut scores = Vec::new();
    profiler.call(score, (&mut scores, results));
    scores.sort_by_key(|&score| std::cmp::Reverse(black_box(score)));
    black_box(scores);
}

fn score(_: &mut Profiler, (scores, results): (&mut Vec<u64>, u64)) {
    let numbers = 0..results * 400;
    scores.extend(numbers.map(|n| n.wrapping_mul(6_364_136_223_846_793_005) >> 20));
}

fn report(profiler: &mut Profiler, orders: u64) {
    profiler.call(sum_orders, orders);
    profiler.call(render_invoice, orders / 8);
}

fn sum_orders(profiler: &mut Profiler, orders: u64) {
    let mut text = String::new();
    profiler.call(read_orders, (&mut text, orders));
    profiler.call(parse_prices, text);
}

fn read_orders(_: &mut Profiler, (text, orders): (&mut String, u64)) {
    text.extend((0..orders * 500).map(|order| format!("{},", order * 13 % 977)));
}

fn parse_prices(_: &mut Profiler, text: String) {
    let sum: u64 = text
        .split(',')
        .filter_map(|price| price.parse::<u64>().ok())
        .sum();
    black_box(sum);
}
