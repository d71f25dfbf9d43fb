// SPDX-License-Identifier: BSD-2-Clause
// What stands behind an option: "value,key=value,...". ",," is a comma, a key given twice has its
// last value, and a key that nobody takes is an error that names it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "util/result.h"

namespace ferry::vmm {

// "64", "64k", "1.5G", "0x100": bytes, or multiples of `unit` where no suffix says otherwise
// (util/size-text.h).
Result<uint64_t> parse_size(std::string_view text, uint64_t unit = 1);
Result<uint64_t> parse_number(std::string_view text);  // decimal, 0x hexadecimal
Result<bool> parse_bool(std::string_view text);        // on, yes, true, y / off, no, false, n

enum class Switch : uint8_t { Unset, Off, On };

// A value. take_*() removes the key; nothing (or the Error) when it was not given.
class SubOptions {
 public:
    // `context` begins every error ("-object"). A first part without '=' is the value of
    // `implied_key`; another one means key=on, or for "noKEY" KEY=off.
    static Result<SubOptions> parse(std::string context, std::string_view text,
                                    std::string_view implied_key = {});

    const std::string& context() const { return context_; }
    void set_context(std::string context) { context_ = std::move(context); }
    bool has(std::string_view key) const;
    // Adds what `later` holds; its values win.
    void merge(SubOptions later);

    std::optional<std::string> take(std::string_view key);
    Result<std::string> take_required(std::string_view key);
    Result<Switch> take_switch(std::string_view key);
    Result<std::optional<uint64_t>> take_size(std::string_view key, uint64_t unit = 1);
    Result<std::optional<uint64_t>> take_number(std::string_view key);
    // Everything that was not taken, in the order given.
    struct Pair {
        std::string key;
        std::string value;
    };
    std::vector<Pair> take_rest();
    // An Error naming the first key that nobody took.
    Result<> finish() const;

 private:
    std::string context_;
    std::vector<Pair> pairs_;
};

}  // namespace ferry::vmm
