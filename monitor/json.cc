// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/json.h"

#include <array>
#include <cmath>
#include <vector>

#include "util/try.h"

namespace ferry::monitor {

namespace {

// The library says what it was parsing; QMP clients know these words. The first match counts.
struct ParseText {
    std::string_view library;
    std::string_view ours;
};
constexpr std::array kParseTexts = {
    ParseText{"parsing value - invalid literal", "invalid keyword"},
    ParseText{"parsing value - invalid string", "invalid string"},
    ParseText{"parsing value - invalid number", "invalid number"},
    ParseText{"parsing value", "expecting value"},
    ParseText{"parsing object separator", "missing : in object pair"},
    ParseText{"parsing object key", "key is not a string in object"},
    ParseText{"parsing object", "expected separator in dict"},
    ParseText{"parsing array", "expected separator in list"},
};

// Builds a value out of the library's parse events, where duplicates can still be seen.
class Builder final : public Json::json_sax_t {
 public:
    bool null() override { return put(nullptr); }
    bool boolean(bool value) override { return put(value); }
    bool number_integer(number_integer_t value) override { return put(value); }
    bool number_unsigned(number_unsigned_t value) override { return put(value); }
    bool number_float(number_float_t value, const string_t& /*text*/) override {
        return put(value);
    }
    bool string(string_t& value) override { return put(std::move(value)); }
    bool binary(binary_t& /*value*/) override { return fail("expecting value"); }
    bool start_object(std::size_t /*size*/) override { return open(Json::object()); }
    bool start_array(std::size_t /*size*/) override { return open(Json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool key(string_t& name) override {
        const auto [place, is_new] = open_.back()->emplace(name, nullptr);
        if (!is_new) return fail("duplicate key");
        value_of_key_ = &*place;
        return true;
    }
    bool parse_error(std::size_t /*position*/, const std::string& token,
                     const nlohmann::detail::exception& what) override {
        const std::string_view said = what.what();
        for (const ParseText& text : kParseTexts) {
            if (said.find(text.library) == std::string_view::npos) continue;
            return fail(token.empty() ? std::string(text.ours)
                                      : fmt::format("{} at '{}'", text.ours, token));
        }
        return fail(std::string(said));
    }

    Result<Json> take() {
        if (error_) return make_error(ErrorKind::Protocol, "JSON parse error, {}", *error_);
        return std::move(root_);
    }

 private:
    bool fail(std::string why) {
        if (!error_) error_ = std::move(why);
        return false;
    }
    Json* place(Json value) {
        if (open_.empty()) {
            root_ = std::move(value);
            return &root_;
        }
        if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
        *value_of_key_ = std::move(value);
        return value_of_key_;
    }
    bool put(Json value) {
        place(std::move(value));
        return true;
    }
    bool open(Json container) {
        if (open_.size() == kMaxDepth) return fail("nesting depth limit exceeded");
        open_.push_back(place(std::move(container)));
        return true;
    }
    bool close() {
        open_.pop_back();
        return true;
    }

    Json root_;
    std::vector<Json*> open_;  // an element stays where it is while something in it is open
    Json* value_of_key_ = nullptr;
    std::optional<std::string> error_;
};

class Printer {
 public:
    explicit Printer(Layout layout) : layout_(layout) {}

    void print(const Json& value, size_t depth) {
        if (value.is_object()) {
            container('{', '}', value, depth, [&](const auto& entry) {
                quote(entry.key());
                out_ += ": ";
                print(entry.value(), depth + 1);
            });
        } else if (value.is_array()) {
            container('[', ']', value, depth,
                      [&](const auto& entry) { print(entry.value(), depth + 1); });
        } else if (value.is_string()) {
            quote(value.get_ref<const std::string&>());
        } else if (value.is_number_float()) {
            number(value.get<double>());
        } else {
            out_ += value.dump();
        }
    }
    std::string take() { return std::move(out_); }

 private:
    template <typename Each>
    void container(char begin, char end, const Json& value, size_t depth, Each each) {
        out_ += begin;
        bool first = true;
        for (const auto& entry : value.items()) {
            if (!first) out_ += layout_ == Layout::Pretty ? "," : ", ";
            first = false;
            new_line(depth + 1);
            each(entry);
        }
        new_line(depth);
        out_ += end;
    }
    void new_line(size_t depth) {
        if (layout_ == Layout::Line) return;
        out_ += '\n';
        out_.append(4 * depth, ' ');
    }
    void quote(const std::string& text) {
        out_ += Json(text).dump(-1, ' ', true, Json::error_handler_t::replace);
    }
    // Whole numbers look like integers; JSON has no infinity.
    void number(double value) {
        constexpr double kExact = 9007199254740992.0;  // 2^53
        if (!std::isfinite(value)) {
            out_ += '0';
        } else if (value == std::trunc(value) && std::abs(value) < kExact) {
            out_ += fmt::format("{}", static_cast<int64_t>(value));
        } else {
            out_ += fmt::format("{}", value);
        }
    }

    Layout layout_;
    std::string out_;
};

}  // namespace

Result<Json> parse_json(std::string_view text) {
    Builder builder;
    Json::sax_parse(text, &builder);
    return builder.take();
}

std::string to_text(const Json& value, Layout layout) {
    Printer printer(layout);
    printer.print(value, 0);
    return printer.take();
}

}  // namespace ferry::monitor
