// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "monitor/read-line.h"

namespace ferry::monitor {
namespace {

// What a terminal shows that was sent the bytes: the rows, and the cursor in the last of them.
class Screen {
 public:
    void write(std::string_view bytes) {
        for (const char byte : bytes) put(byte);
    }
    const std::string& row() const { return rows_.back(); }
    const std::vector<std::string>& rows() const { return rows_; }
    size_t cursor() const { return cursor_; }

 private:
    void put(char byte) {
        if (!escape_.empty()) return put_escape(byte);
        if (byte == '\x1b') {
            escape_ += byte;
        } else if (byte == '\r') {
            cursor_ = 0;
        } else if (byte == '\n') {
            rows_.emplace_back();
        } else {
            rows_.back().resize(std::max(rows_.back().size(), cursor_ + 1), ' ');
            rows_.back()[cursor_++] = byte;
        }
    }

    void put_escape(char byte) {
        escape_ += byte;
        if (byte < '@' || byte == '[') return;
        if (byte == 'C') ++cursor_;
        if (byte == 'D') --cursor_;
        if (byte == 'K') rows_.back().resize(cursor_);
        if (byte == 'J') rows_ = {""};
        if (byte == 'H') cursor_ = 0;
        escape_.clear();
    }

    std::vector<std::string> rows_{""};
    size_t cursor_ = 0;
    std::string escape_;
};

std::vector<std::string> complete_fruit(std::string_view line) {
    const std::string_view word = line.substr(line.rfind(' ') + 1);
    std::vector<std::string> words;
    for (const char* fruit : {"apple", "apricot", "banana"}) {
        if (std::string_view(fruit).starts_with(word)) words.emplace_back(fruit);
    }
    return words;
}

class ReadLineTest : public ::testing::Test {
 protected:
    // The lines that were ended.
    std::vector<std::string> type(std::string_view keys) {
        std::vector<std::string> lines;
        for (const char key : keys) {
            ReadLine::Step step = line_.type(key);
            screen_.write(step.echo);
            echo_ += step.echo;
            if (step.line) lines.push_back(*step.line);
        }
        return lines;
    }

    // What is entered by the keys, which must be what is seen before.
    std::string entered(std::string_view keys) {
        type(keys);
        const std::string seen = screen_.row();
        const auto lines = type("\n");
        EXPECT_EQ(lines.size(), 1U);
        EXPECT_EQ(seen, lines.front());
        return lines.front();
    }

    ReadLine line_{"(qemu) ", complete_fruit};
    Screen screen_;
    std::string echo_;
};

TEST_F(ReadLineTest, EchoIsTheOneThatClientsKnow) {
    EXPECT_EQ(type("abc\n"), std::vector<std::string>{"abc"});
    EXPECT_EQ(echo_, "a\x1b[K\x1b[Dab\x1b[K\x1b[D\x1b[Dabc\x1b[K\r\n");
    echo_.clear();
    type("ab\x1b[D\x1b[DX");
    EXPECT_EQ(echo_, "a\x1b[K\x1b[Dab\x1b[K\x1b[D\x1b[DXab\x1b[K\x1b[D\x1b[D");
}

TEST_F(ReadLineTest, EachOfCrAndLfEndsALine) {
    EXPECT_EQ(type("a\rb\nc\r\n"), (std::vector<std::string>{"a", "b", "c", ""}));
}

TEST_F(ReadLineTest, KeysEditTheLine) {
    EXPECT_EQ(entered("infx\bo\x7f"
                      "o"),
              "info");
    EXPECT_EQ(entered("bc\x01"
                      "a\x05"
                      "d"),
              "abcd");
    EXPECT_EQ(entered("\x1b[Dad\x1b[Dbc\x1b[C"
                      "e"),
              "abcde");
    EXPECT_EQ(entered("xab\x1b[H\x1b[3~\x1b[Fc"), "abc");
    EXPECT_EQ(entered("xab\x1b[1~\x04\x1b[4~c\x04"), "abc");
    EXPECT_EQ(entered("abXY\x02\x02\x0b"), "ab");
    EXPECT_EQ(entered("XYab\x02\x02\x15"), "ab");
    EXPECT_EQ(entered("ab cd ef  \x17x"), "ab cd x");
    EXPECT_EQ(entered("\x17\b\x0b\x15\x04"
                      "a"),
              "a");
    EXPECT_EQ(entered("abc\x1bOD\x1bOC"), "abc");
}

TEST_F(ReadLineTest, WhatMeansNothingIsPassedOver) {
    EXPECT_EQ(entered("a\x03\x07"
                      "b\x1bxc\x1b[200~d\x1b[1;5Ze\x1bOPf"),
              "abcdef");
    EXPECT_EQ(entered(std::string_view("a\0b", 3)), "ab");
    EXPECT_EQ(entered("\x1b[" + std::string(1000, '9') + "~x"), "x");
}

TEST_F(ReadLineTest, LineEndsBehindHalfASequence) {
    EXPECT_EQ(type("a\x1b\nb\x1b[\nc\x1b[3\nd\x1bO\re\x1b\x1b[Df\n"),
              (std::vector<std::string>{"a", "b", "c", "d", "fe"}));
}

TEST_F(ReadLineTest, BytesBeyondAsciiGoThrough) {
    EXPECT_EQ(type("n\xc3\xa4me\n"), std::vector<std::string>{"n\xc3\xa4me"});
}

TEST_F(ReadLineTest, CursorIsSeenWhereItIs) {
    type("abcd\x1b[D\x1b[D");
    EXPECT_EQ(screen_.cursor(), 2U);
    type("X");
    EXPECT_EQ(screen_.row(), "abXcd");
    EXPECT_EQ(screen_.cursor(), 3U);
}

TEST_F(ReadLineTest, HistoryGoesBackAndForth) {
    type("one\ntwo\n");
    EXPECT_EQ(entered("\x1b[A\x1b[A"), "one");
    EXPECT_EQ(entered("\x1b[A\x1b[A\x1b[A\x1b[A!"), "two!");
    EXPECT_EQ(entered("begun\x10\x0e"), "begun");
    EXPECT_EQ(entered("\x1b[B"
                      "x"),
              "x");
}

TEST_F(ReadLineTest, HistoryHasALineOnceAndIsBounded) {
    for (size_t i = 0; i < kReadLineHistory; ++i) type("line" + std::to_string(i) + "\n");
    type("line0\n\n");
    EXPECT_EQ(entered("\x1b[A"), "line0");
    type("more\n");
    std::string keys;
    for (size_t i = 0; i < 2 * kReadLineHistory; ++i) keys += "\x1b[A";
    EXPECT_EQ(entered(keys), "line2");
}

TEST_F(ReadLineTest, WordIsCompleted) {
    EXPECT_EQ(entered("eat ban\t"), "eat banana ");
    EXPECT_EQ(entered("cherry\t"), "cherry");
}

TEST_F(ReadLineTest, WordsThatArePossibleAreListed) {
    type("a\tr");
    EXPECT_EQ(screen_.rows().at(screen_.rows().size() - 2), "apple     apricot   ");
    EXPECT_EQ(screen_.row(), "(qemu) apr");
    EXPECT_EQ(type("\t\n"), std::vector<std::string>{"apricot "});
}

TEST_F(ReadLineTest, ScreenIsClearedButNotTheLine) {
    type("ab\nxy\x0c");
    EXPECT_EQ(screen_.rows(), std::vector<std::string>{"(qemu) xy"});
}

TEST_F(ReadLineTest, TooLongALineSaysSoAndTheNextOneIsFine) {
    for (size_t i = 0; i < kMaxTypedBytes; ++i) line_.type('x');
    EXPECT_EQ(line_.type('y').echo, "");
    const ReadLine::Step ended = line_.type('\n');
    EXPECT_EQ(ended.line->size(), kMaxTypedBytes);
    EXPECT_EQ(ended.length, ReadLine::Step::Length::TooLong);
    line_.type('z');
    EXPECT_EQ(line_.type('\n').length, ReadLine::Step::Length::Fits);
}

TEST_F(ReadLineTest, ForgottenLineLeavesTheHistory) {
    type("kept\nlost\x1b");
    line_.forget_line();
    screen_ = {};
    EXPECT_EQ(entered("[x"), "[x");
    EXPECT_EQ(entered("\x1b[A\x1b[A"), "kept");
}

}  // namespace
}  // namespace ferry::monitor
