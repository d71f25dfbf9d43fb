// SPDX-License-Identifier: BSD-2-Clause
// Writes what was read as text or as one JSON document, element after element: nothing is kept.
#pragma once

#include <iosfwd>
#include <string>
#include <string_view>

#include "tools/ferry-stream/context.h"
#include "tools/ferry-stream/reader.h"

namespace ferry::stream_tool {

class Printer : public IdleObserver {
 public:
    virtual void begin(const Input& input) = 0;
    // Behind the last element: what it adds up to, and the findings by offset.
    virtual void end(const StreamReader& reader, const Findings& findings) = 0;
};

// One line per part: offset, size, what it is.
class TextPrinter final : public Printer {
 public:
    explicit TextPrinter(std::ostream& out) : out_(out) {}
    void begin(const Input& input) override;
    Result<> element(const Node& node) override;
    void end(const StreamReader& reader, const Findings& findings) override;

 private:
    void print(const Node& node, size_t depth);
    std::ostream& out_;
};

// {"stream": ..., "size": ..., "elements": [...], "blocks": [...], "devices": [...],
//  "problems": [...], "ok": ...}; the elements are left out on wish.
class JsonPrinter final : public Printer {
 public:
    enum class Elements : uint8_t { Shown, Hidden };
    JsonPrinter(std::ostream& out, Elements elements) : out_(out), elements_(elements) {}
    void begin(const Input& input) override;
    Result<> element(const Node& node) override;
    void end(const StreamReader& reader, const Findings& findings) override;

 private:
    std::ostream& out_;
    Elements elements_;
    bool first_ = true;
};

// Only the findings, or that there are none.
class CheckPrinter final : public Printer {
 public:
    explicit CheckPrinter(std::ostream& out) : out_(out) {}
    void begin(const Input& input) override { name_ = input.name(); }
    void end(const StreamReader& reader, const Findings& findings) override;

 private:
    std::ostream& out_;
    std::string name_;
};

// "byte 0x10: footer: ..." for each, by offset; `before` begins each line.
void print_findings(std::ostream& out, std::string_view before, const Findings& findings);

}  // namespace ferry::stream_tool
