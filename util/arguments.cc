// SPDX-License-Identifier: BSD-2-Clause
#include "util/arguments.h"

#include <utility>

#include "util/try.h"

namespace ferry::util {

std::string ArgumentReader::take() {
    std::string word = rest_.front();
    rest_ = rest_.subspan(1);
    return word;
}

std::optional<ArgumentReader::Item> ArgumentReader::next() {
    if (rest_.empty()) return std::nullopt;
    std::string word = take();
    if (word.size() < 2 || !word.starts_with('-')) return Item{Item::Kind::Word, std::move(word)};
    const size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
    inline_value_.reset();
    if (equals != std::string::npos) inline_value_ = word.substr(equals + 1);
    option_ = word.substr(0, equals);
    return Item{Item::Kind::Option, option_};
}

Result<std::string> ArgumentReader::value() {
    if (inline_value_) return *std::exchange(inline_value_, std::nullopt);
    if (!rest_.empty()) return take();
    return make_error(ErrorKind::InvalidArgument, "{} wants a value", option_);
}

Result<> ArgumentReader::end_option() {
    if (!inline_value_) return {};
    return make_error(ErrorKind::InvalidArgument, "{} takes no value", option_);
}

}  // namespace ferry::util
