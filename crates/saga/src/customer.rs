//! The customer: name and e-mail address, which are personal data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    reading::Fields,
    text::{is_letter, is_visible},
};

/// The customer. This is personal data: it is kept in one table and nowhere else, and its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    /// 1 to 100 visible characters.
    pub name: String,
    /// One e-mail address of at most 254 bytes (RFC 5321).
    pub email: String,
}

impl fmt::Debug for Customer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Customer(…)")
    }
}

impl Customer {
    /// Reads the fields `name` and `email`.
    pub fn read(fields: &mut Fields<'_, '_>) -> Option<Self> {
        let name = fields.text("name", person_name);
        let email = fields.text("email", email);
        Some(Self { name: name?, email: email? })
    }
}

fn person_name(text: &str) -> Result<String, String> {
    if (1..=100).contains(&text.chars().count()) && text.contains(is_letter) && is_visible(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 100 visible characters, at least one of them a letter".into())
    }
}

/// The `specials` of RFC 5322, section 3.2.3, except for the dot. An address may contain them only within quotes.
/// Addresses should avoid quotes anyway (RFC 5321, section 4.1.2), and allowing them here would let a list of addresses
/// in.
const SPECIALS: &str = "()<>[]:;@\\,\"";

/// One address without a display name. Only its form is checked: whether the customer really owns it, only a
/// confirmation mail can show.
fn email(text: &str) -> Result<String, String> {
    let is_odd = |c: char| c.is_whitespace() || SPECIALS.contains(c);
    let is_part = |part: &str| !part.is_empty() && !part.contains(is_odd);
    match text.split_once('@') {
        Some((local, domain)) if is_part(local) && is_part(domain) && text.len() <= 254 && is_visible(text) => {
            Ok(text.to_owned())
        }
        _ => Err("must be one e-mail address, such as ada@example.com, of at most 254 bytes".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reading::read_object;

    fn read(name: &str, email: &str) -> Result<Customer, Vec<String>> {
        let read = read_object(&json!({"name": name, "email": email}), Customer::read);
        read.map_err(|violations| violations.into_iter().map(|violation| violation.pointer).collect())
    }

    /// Names in many scripts, with the characters that are hard to handle in some of them.
    const NAMES: &[&str] = &[
        "Ada Lovelace",
        "O",
        "Jean-Luc d'Orléans",
        "Anna-Lena Groß",
        "Nguye\u{302}\u{303}n Thi\u{323} Minh",
        "Þórunn Ægisdóttir",
        "Şule Yıldız",
        "Keoni Kealiʻikuaʻāina",
        "X Æ A-12",
        "Martin Luther King, Jr.",
        "Gal·la Placídia",
        "ǃXóõ ǂKhomani",
        "Ọlá Ṣẹ́gun",
        "Ελένη Παπαδοπούλου",
        "Дмитрий Шостакович",
        "Ґалаґан Їжакевич",
        "Արամ Խաչատրյան",
        "ქეთევან წამებული",
        "דוד בן־גוריון",
        "שָׁלוֹם עֲלֵיכֶם",
        "ז'בוטינסקי ג׳ורג׳",
        "محمد بن عبد الله",
        "مُحَمَّد",
        "نرگس\u{200c}سادات حسینی",
        "علی\u{200c}رضا می\u{200c}بدی",
        "ܐܦܪܝܡ ܣܘܪܝܝܐ",
        "އަހްމަދު",
        "ߒߞߏ ߛߟߏߡߣߊ",
        "አበበ ቢቂላ",
        "ᏎᏉᏯ",
        "रामप्रसाद शर्मा",
        "लक्\u{200d}ष्मी",
        "রবীন্দ্রনাথ ঠাকুর",
        "র\u{200d}্যাফেল",
        "ਗੁਰਪ੍ਰੀਤ ਸਿੰਘ",
        "ગાંધી",
        "ଜଗନ୍ନାଥ",
        "சுப்பிரமணிய பாரதி",
        "రామకృష్ణ",
        "ಕುವೆಂಪು",
        "മോഹന്\u{200d}ലാല്\u{200d}",
        "ශ්\u{200d}රී චන්ද්\u{200d}රිකා",
        "สมชาย ใจดี",
        "ສົມສະຫວາດ",
        "သန်းရွှေ",
        "នរោត្ដម សីហនុ",
        "བསྟན་འཛིན་རྒྱ་མཚོ",
        "ᠴᠢᠩᠭᠢᠰ",
        "ᠰᠠᠷ\u{180e}ᠠ",
        "毛泽东",
        "山田\u{3000}太郎",
        "葛\u{e0100}城 渡邉",
        "ヤマダ・タロウ",
        "ジョン＝スミス",
        "さくら",
        "김정희",
        "\u{1112}\u{1161}\u{11ab}나",
        "歐陽\u{20021}",
        "ꋊꇙ ꀋꉬ",
        "𞤀𞤣𞤤𞤢𞤥",
        "ⵎⵓⵃⵎⵎⴷ",
        "ᱥᱟᱱᱛᱟᱲ",
    ];

    #[test]
    fn names_of_real_people_pass_in_every_script() {
        for name in NAMES {
            assert!(read(name, "ada@example.com").is_ok(), "{name:?}");
        }
        for address in ["ada@example.com", "o'hara+trips@bücher.example", "用户@例子.公司", "x@localhost", "a.b..c@d"]
        {
            assert!(read("Ada", address).is_ok(), "{address:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_or_is_not_one_address_is_refused() {
        let long = "x".repeat(101);
        for name in ["  ", "a\u{0}b", &long, "\u{fffd}", "\u{200b}", "Ada\u{202e}ecalevoL", "..."] {
            assert_eq!(read(name, "ada@example.com"), Err(vec!["/name".into()]), "{name:?}");
        }
        let long = format!("a@{}", "x".repeat(254));
        let list = "ada@example.com,bob@example.com";
        for email in [list, "Ada <ada@example.com>", "ada@bob@example.com", "a\u{200b}da@example.com", "ada", &long] {
            assert_eq!(read("Ada", email), Err(vec!["/email".into()]), "{email:?}");
        }
    }
}
