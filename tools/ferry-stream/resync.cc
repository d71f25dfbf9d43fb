// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/resync.h"

#include <algorithm>
#include <array>
#include <string>

#include "tools/ferry-stream/commands.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::stream_tool {

using migration::Element;

namespace {

constexpr uint32_t kMaxPlausibleVersion = 0xffff;
constexpr size_t kFooterBytes = 1 + sizeof(uint32_t);
// The longest beginning of an element that plausible_element() looks at.
constexpr size_t kElementBytes = 1 + sizeof(uint32_t) + 1 + 0xff + 2 * sizeof(uint32_t);

bool is_printable(std::byte byte) {
    return byte >= std::byte{0x20} && byte < std::byte{0x7f};
}

// START and FULL, behind their type.
bool plausible_first(ConstBytes bytes) {
    if (bytes.size() <= sizeof(uint32_t)) return true;
    bytes = bytes.subspan(sizeof(uint32_t));
    const auto length = static_cast<size_t>(bytes[0]);
    bytes = bytes.subspan(1);
    if (length == 0) return false;
    if (!std::ranges::all_of(bytes.first(std::min(length, bytes.size())), is_printable)) {
        return false;
    }
    if (bytes.size() < length + 2 * sizeof(uint32_t)) return true;
    return util::load_be32(&bytes[length + sizeof(uint32_t)]) <= kMaxPlausibleVersion;
}

bool plausible_next(ConstBytes bytes, const IsStarted& started) {
    return bytes.size() < sizeof(uint32_t) || started(util::load_be32(bytes.data()));
}

bool plausible_command(ConstBytes bytes) {
    if (bytes.size() < 2 * sizeof(uint16_t)) return true;
    const CommandInfo* const info = find_command(util::load_be16(bytes.data()));
    return info != nullptr && info->fits(util::load_be16(&bytes[sizeof(uint16_t)]));
}

// EOF: the end, a description, or a command of ours.
bool plausible_end(ConstBytes bytes) {
    return bytes.empty() || bytes[0] == std::byte{static_cast<uint8_t>(Element::VmDescription)} ||
           bytes[0] == std::byte{static_cast<uint8_t>(Element::Command)};
}

}  // namespace

bool plausible_element(ConstBytes bytes, const IsStarted& started) {
    if (bytes.empty()) return true;
    const ConstBytes rest = bytes.subspan(1);
    switch (static_cast<Element>(bytes[0])) {
        case Element::SectionStart:
        case Element::SectionFull: return plausible_first(rest);
        case Element::SectionPart:
        case Element::SectionEnd: return plausible_next(rest, started);
        case Element::Command: return plausible_command(rest);
        case Element::Eof: return plausible_end(rest);
        case Element::Subsection:
        case Element::VmDescription:
        case Element::Configuration:
        case Element::SectionFooter: return false;
    }
    return false;  // a byte from outside
}

Result<bool> find_footer(Cursor& in, uint32_t id, ConstBytes before, uint64_t max_bytes,
                         const IsStarted& started) {
    std::vector<std::byte> wanted(before.begin(), before.end());
    wanted.resize(before.size() + kFooterBytes);
    wanted[before.size()] = std::byte{static_cast<uint8_t>(Element::SectionFooter)};
    util::store_be32(&wanted[before.size() + 1], id);
    constexpr size_t kWindow = migration::LoadStream::kMaxPeek;
    for (uint64_t left = max_bytes;;) {
        MIG_TRY(const ConstBytes window, in.peek(kWindow));
        const bool at_end = window.size() < kWindow;
        // What begins in the last bytes is looked at with the next window.
        const size_t room = wanted.size() + kElementBytes;
        size_t look = at_end ? window.size() : kWindow - room;
        look = static_cast<size_t>(std::min<uint64_t>(look, left));
        for (size_t at = 0; at < look; ++at) {
            const auto found = std::search(window.begin() + static_cast<std::ptrdiff_t>(at),
                                           window.end(), wanted.begin(), wanted.end());
            at = static_cast<size_t>(found - window.begin());
            if (at >= look) break;
            if (!plausible_element(window.subspan(at + wanted.size()), started)) continue;
            MIG_CHECK(in.skip(at));
            return true;
        }
        MIG_CHECK(in.skip(look));
        left -= look;
        if (at_end || left == 0) return false;
    }
}

}  // namespace ferry::stream_tool
