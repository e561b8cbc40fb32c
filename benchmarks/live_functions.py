"""Small functions to write, for benchmarks/live_tasks.py: level, request, tests shown, tests held back for grading."""

from __future__ import annotations

Function = tuple[str, str, list[str], list[str]]

FUNCTIONS: dict[str, Function] = {
    "is_leap": (
        "easy",
        "is_leap(year) that tells whether a year is a leap year in the Gregorian calendar.",
        ["assert is_leap(2024)", "assert not is_leap(2023)", "assert not is_leap(1900)"],
        ["assert is_leap(2000)", "assert not is_leap(2100)", "assert is_leap(1996)"],
    ),
    "vowels": (
        "easy",
        "vowels(text) that counts the vowels a, e, i, o, u in a text, upper or lower case.",
        ["assert vowels('banana') == 3", "assert vowels('AEiou') == 5"],
        ["assert vowels('') == 0", "assert vowels('Queue') == 4", "assert vowels('Rhythm and Blues') == 3"],
    ),
    "mean": (
        "easy",
        "mean(numbers) that gives the arithmetic mean of a list, and 0 for an empty list.",
        ["assert mean([1, 2, 3]) == 2", "assert mean([]) == 0"],
        ["assert mean([5]) == 5", "assert mean([1, 2]) == 1.5", "assert mean([-1, 1]) == 0"],
    ),
    "unique": (
        "easy",
        "unique(items) that removes duplicates from a list and keeps the order of first appearance.",
        ["assert unique([3, 1, 3, 2, 1]) == [3, 1, 2]"],
        ["assert unique([]) == []", "assert unique(['b', 'a', 'b']) == ['b', 'a']"],
    ),
    "roman": (
        "medium",
        "roman(n) that turns an integer from 1 to 3999 into a Roman numeral.",
        ["assert roman(4) == 'IV'", "assert roman(1990) == 'MCMXC'"],
        ["assert roman(1) == 'I'", "assert roman(944) == 'CMXLIV'", "assert roman(3999) == 'MMMCMXCIX'"],
    ),
    "merge": (
        "medium",
        "merge(intervals) that merges overlapping or touching intervals, given as [start, end] lists, sorted.",
        ["assert merge([[1, 3], [2, 6], [8, 10]]) == [[1, 6], [8, 10]]", "assert merge([]) == []"],
        ["assert merge([[5, 6], [1, 2]]) == [[1, 2], [5, 6]]", "assert merge([[1, 2], [2, 3]]) == [[1, 3]]"],
    ),
    "anagrams": (
        "medium",
        "anagrams(words) that groups words that are anagrams; groups and their words are sorted alphabetically.",
        ["assert anagrams(['tea', 'eat', 'tan']) == [['eat', 'tea'], ['tan']]"],
        ["assert anagrams([]) == []", "assert anagrams(['b', 'a']) == [['a'], ['b']]"],
    ),
    "balanced": (
        "medium",
        "balanced(text) that tells whether the brackets (), [] and {} in a text are balanced; ignore other characters.",
        ["assert balanced('a(b[c]{d})')", "assert not balanced('(]')", "assert not balanced('((')"],
        ["assert balanced('')", "assert not balanced(')(')", "assert not balanced('([)]')"],
    ),
    "longest_run": (
        "hard",
        "longest_run(text) that gives the longest run of one repeated character as (character, length); the first of "
        "equal runs wins, and the empty text gives ('', 0).",
        ["assert longest_run('aabbbcc') == ('b', 3)", "assert longest_run('') == ('', 0)"],
        ["assert longest_run('abc') == ('a', 1)", "assert longest_run('aabb') == ('a', 2)"],
    ),
    "parse_duration": (
        "hard",
        "parse_duration(text) that turns texts such as '1h30m', '45s' or '2h5s' into seconds.",
        ["assert parse_duration('1h30m') == 5400", "assert parse_duration('45s') == 45"],
        ["assert parse_duration('2h5s') == 7205", "assert parse_duration('10m') == 600"],
    ),
    "spiral": (
        "hard",
        "spiral(matrix) that gives the elements of a list of rows in clockwise spiral order from the top left.",
        ["assert spiral([[1, 2], [4, 3]]) == [1, 2, 3, 4]", "assert spiral([]) == []"],
        [
            "assert spiral([[1, 2, 3], [8, 9, 4], [7, 6, 5]]) == [1, 2, 3, 4, 5, 6, 7, 8, 9]",
            "assert spiral([[1], [2]]) == [1, 2]",
        ],
    ),
    "rle": (
        "hard",
        "rle(text) that run-length encodes a text, writing the count after each character only where it is over 1.",
        ["assert rle('aaab') == 'a3b'", "assert rle('') == ''"],
        ["assert rle('abc') == 'abc'", "assert rle('aabbcc') == 'a2b2c2'", "assert rle('z' * 12) == 'z12'"],
    ),
}
