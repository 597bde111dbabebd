//! Visible characters, which names and addresses may consist of.

use icu_properties::{
    CodePointMapData, CodePointMapDataBorrowed, CodePointSetData,
    props::{
        DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup, Ideographic, IndicSyllabicCategory,
        JoiningType, VariationSelector,
    },
};

const CATEGORY: CodePointMapDataBorrowed<'static, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();
/// Control and format characters, private-use and unassigned characters, and line and paragraph separators.
const HIDDEN: GeneralCategoryGroup = GeneralCategoryGroup::Other
    .union(GeneralCategoryGroup::LineSeparator)
    .union(GeneralCategoryGroup::ParagraphSeparator);

/// Whether it is a visible letter of any script.
pub fn is_letter(c: char) -> bool {
    GeneralCategoryGroup::Letter.contains(CATEGORY.get(c)) && !is_hidden(c)
}

/// Whether every character is visible, or shapes the preceding letter as some scripts require. None changes the
/// direction of the text: characters that do are hidden themselves.
pub fn is_visible(text: &str) -> bool {
    let mut letter = None; // the letter that the next character would shape
    text.chars().all(|c| {
        let is_fine = !is_hidden(c) || letter.is_some_and(|letter| shapes(c, letter));
        if is_letter(c) {
            letter = Some(c);
        } else if !GeneralCategoryGroup::Mark.contains(CATEGORY.get(c)) {
            letter = None;
        }
        is_fine
    })
}

fn is_hidden(c: char) -> bool {
    // Default_Ignorable_Code_Point also has letters and marks that show nothing, such as U+3164, a Hangul filler.
    HIDDEN.contains(CATEGORY.get(c))
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        || c == char::REPLACEMENT_CHARACTER
}

/// The Unicode Standard, chapters 9 (Arabic), 12 (Indic), 13 (Mongolian) and 23.2 to 23.4: joiners determine how
/// neighbouring letters connect, and variation selectors choose a form, of ideographs too.
fn shapes(c: char, letter: char) -> bool {
    let is_connected = CodePointMapData::<JoiningType>::new().get(letter) != JoiningType::NonJoining
        || CodePointMapData::<IndicSyllabicCategory>::new().get(letter) != IndicSyllabicCategory::Other;
    match c {
        ZERO_WIDTH_NON_JOINER | ZERO_WIDTH_JOINER | MONGOLIAN_VOWEL_SEPARATOR => is_connected,
        _ if CodePointSetData::new::<VariationSelector>().contains(c) => {
            is_connected || CodePointSetData::new::<Ideographic>().contains(letter)
        }
        _ => false,
    }
}

const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';
const MONGOLIAN_VOWEL_SEPARATOR: char = '\u{180e}';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_and_direction_changing_characters_are_detected() {
        for odd in [
            '\u{0}',
            '\t',
            '\n',
            '\u{7f}',
            '\u{85}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1160}',
            '\u{17b4}',
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{3164}',
            '\u{378}',
            '\u{e000}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{fffd}',
            '\u{ffff}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{10ffff}',
            '\u{200c}',
            '\u{200d}',
            '\u{180e}',
            '\u{fe0f}',
            '\u{e0100}',
        ] {
            for text in [format!("{odd}"), format!("Ada{odd}"), format!("A{odd}da"), format!("{odd}Ada {odd}")] {
                assert!(!is_visible(&text), "U+{:04X} in {text:?}", u32::from(odd));
            }
        }
        assert!(!is_letter('\u{3164}'));
    }

    #[test]
    fn a_joiner_stands_where_letters_are_connected_and_once() {
        assert!(is_visible("نرگس\u{200c}سادات"));
        for odd in ["\u{200c}نرگس", "نرگس \u{200c}سادات", "نرگس\u{200c}\u{200c}سادات", "漢\u{200d}字", "é\u{200d}a"]
        {
            assert!(!is_visible(odd), "{odd:?}");
        }
    }
}
