// SPDX-License-Identifier: BSD-2-Clause
#include "migration/stream.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::migration {

// --- SaveStream

SaveStream::SaveStream(ByteSink& sink, size_t buffer_bytes) : sink_(sink), buffer_(buffer_bytes) {
    assert(buffer_bytes >= sizeof(uint64_t));  // put whole
    parts_.reserve(kMaxParts);
}

void SaveStream::add_part(ConstBytes part) {
    position_ += part.size();
    if (!parts_.empty() && parts_.back().data() + parts_.back().size() == part.data()) {
        parts_.back() = {parts_.back().data(), parts_.back().size() + part.size()};
        return;
    }
    if (parts_.size() == kMaxParts) send_pending();
    parts_.push_back(part);
}

MutBytes SaveStream::reserve(size_t count) {
    // Also when the list is full: add_part() would send and reuse the bytes handed out here.
    if (buffer_.size() - used_ < count || parts_.size() == kMaxParts) send_pending();
    const MutBytes room = MutBytes(buffer_).subspan(used_, count);
    used_ += count;
    add_part(room);
    return room;
}

void SaveStream::send_pending() {
    if (!parts_.empty() && !error_) {
        if (auto sent = sink_.write_all(parts_); !sent) error_ = std::move(sent).error();
    }
    parts_.clear();
    used_ = 0;
}

void SaveStream::u8(uint8_t value) {
    reserve(1)[0] = std::byte{value};
}
void SaveStream::be16(uint16_t value) {
    util::store_be16(reserve(sizeof(value)).data(), value);
}
void SaveStream::be32(uint32_t value) {
    util::store_be32(reserve(sizeof(value)).data(), value);
}
void SaveStream::be64(uint64_t value) {
    util::store_be64(reserve(sizeof(value)).data(), value);
}

void SaveStream::bytes(ConstBytes value) {
    while (!value.empty()) {
        const size_t room = buffer_.size() - used_;
        const size_t count = std::min(value.size(), room != 0 ? room : buffer_.size());
        std::memcpy(reserve(count).data(), value.data(), count);
        value = value.subspan(count);
    }
}

void SaveStream::zeros(size_t count) {
    while (count != 0) {
        const MutBytes room = reserve(std::min(count, buffer_.size()));
        std::ranges::fill(room, std::byte{0});
        count -= room.size();
    }
}

void SaveStream::str8(std::string_view text) {
    assert(text.size() <= 0xff);
    u8(static_cast<uint8_t>(text.size()));
    bytes(bytes_of(text.substr(0, 0xff)));
}

void SaveStream::bytes_ref(ConstBytes value) {
    if (!value.empty()) add_part(value);
}

Result<> SaveStream::flush() {
    send_pending();
    return status();
}

Result<> SaveStream::status() const {
    if (error_) return *error_;
    return {};
}

// --- LoadStream

LoadStream::LoadStream(ByteSource& source, size_t buffer_bytes)
    : source_(source), buffer_(std::max(buffer_bytes, kMaxPeek)) {}

Error LoadStream::ended(uint64_t wanted, uint64_t had) const {
    return make_error(ErrorKind::PeerClosed, "the stream ended at byte {}: {} of {} bytes missing",
                      position_ + (end_ - begin_), wanted - had, wanted);
}

Result<bool> LoadStream::read_more() {
    if (begin_ == end_) begin_ = end_ = 0;
    MIG_TRY(const size_t count, source_.read_some(MutBytes(buffer_).subspan(end_)));
    end_ += count;
    return count != 0;
}

Result<size_t> LoadStream::buffer_up(size_t wanted) {
    if (end_ - begin_ < wanted && buffer_.size() - begin_ < wanted) {
        std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
    while (end_ - begin_ < wanted) {
        MIG_TRY(const bool more, read_more());
        if (!more) break;
    }
    return end_ - begin_;
}

Result<> LoadStream::fill(size_t at_least) {
    if (end_ - begin_ >= at_least) return {};
    MIG_TRY(const size_t here, buffer_up(at_least));
    if (here < at_least) return ended(at_least, here);
    return {};
}

ConstBytes LoadStream::take(size_t count) {
    const ConstBytes out = ConstBytes(buffer_).subspan(begin_, count);
    begin_ += count;
    position_ += count;
    return out;
}

Result<uint8_t> LoadStream::u8() {
    MIG_CHECK(fill(1));
    return static_cast<uint8_t>(take(1)[0]);
}

Result<uint16_t> LoadStream::be16() {
    MIG_CHECK(fill(sizeof(uint16_t)));
    return util::load_be16(take(sizeof(uint16_t)).data());
}

Result<uint32_t> LoadStream::be32() {
    MIG_CHECK(fill(sizeof(uint32_t)));
    return util::load_be32(take(sizeof(uint32_t)).data());
}

Result<uint64_t> LoadStream::be64() {
    MIG_CHECK(fill(sizeof(uint64_t)));
    return util::load_be64(take(sizeof(uint64_t)).data());
}

Result<> LoadStream::bytes(MutBytes into) {
    const size_t wanted = into.size();
    while (!into.empty()) {
        size_t count = std::min(into.size(), end_ - begin_);
        if (count != 0) {
            std::memcpy(into.data(), take(count).data(), count);
        } else if (into.size() >= buffer_.size()) {
            MIG_TRY(count, source_.read_some(into));
            position_ += count;
            if (count == 0) return ended(wanted, wanted - into.size());
        } else {
            MIG_TRY(const bool more, read_more());
            if (!more) return ended(wanted, wanted - into.size());
        }
        into = into.subspan(count);
    }
    return {};
}

Result<> LoadStream::skip(uint64_t count) {
    for (uint64_t left = count; left != 0;) {
        const auto here = static_cast<size_t>(std::min<uint64_t>(left, end_ - begin_));
        if (here == 0) {
            MIG_TRY(const bool more, read_more());
            if (!more) return ended(count, count - left);
        }
        take(here);
        left -= here;
    }
    return {};
}

Result<std::string> LoadStream::str8() {
    MIG_TRY(const uint8_t size, u8());
    MIG_CHECK(fill(size));
    return std::string(text_of(take(size)));
}

Result<ConstBytes> LoadStream::chunk(size_t max) {
    if (max == 0) return ConstBytes{};
    MIG_CHECK(fill(1));
    return take(std::min(max, end_ - begin_));
}

Result<ConstBytes> LoadStream::peek(size_t count) {
    assert(count <= kMaxPeek);
    MIG_TRY(const size_t here, buffer_up(count));
    return ConstBytes(buffer_).subspan(begin_, std::min(count, here));
}

// --- Memory

Result<> MemorySink::write_all(std::span<const ConstBytes> parts) {
    for (const ConstBytes part : parts) bytes_.insert(bytes_.end(), part.begin(), part.end());
    return {};
}

Result<size_t> MemorySource::read_some(MutBytes into) {
    const size_t count = std::min(into.size(), bytes_.size());
    if (count == 0) return 0;
    std::memcpy(into.data(), bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
    return count;
}

}  // namespace ferry::migration
