// SPDX-License-Identifier: BSD-2-Clause
#include "hw/test-device-image.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "util/syscall.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::hw {

namespace {

// All integers little endian.
//   header   magic "FTD1", version 32, session 64, state bytes 64, bytes of the first pass 64,
//            zero 64
//   record   kind 32, payload bytes 32, offset 64; then the payload
constexpr uint32_t kMagic = 0x31445446;
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 40;
constexpr size_t kRecordBytes = 16;
constexpr size_t kTrailerBytes = 8;  // checksum

constexpr uint32_t kExtent = 1;     // offset: in the state
constexpr uint32_t kRegisters = 2;  // offset 0
constexpr uint32_t kTrailer = 3;    // offset: bytes of the image before this record

void put_record(std::byte* at, uint32_t kind, size_t payload_bytes, uint64_t offset) {
    util::store_le32(at, kind);
    util::store_le32(at + 4, static_cast<uint32_t>(payload_bytes));
    util::store_le64(at + 8, offset);
}

}  // namespace

// ---- checksum

void StreamChecksum::add_block(const std::byte* block) {
    constexpr uint64_t kPrime = 0x100000001b3;
    for (size_t i = 0; i < kLanes; ++i) {
        lanes_[i] = (lanes_[i] ^ util::load_le64(block + i * sizeof(uint64_t))) * kPrime;
    }
}

void StreamChecksum::update(ConstBytes bytes) {
    const size_t had = total_ % kBlock;
    total_ += bytes.size();
    if (had != 0) {
        const size_t taken = std::min(kBlock - had, bytes.size());
        std::memcpy(partial_.data() + had, bytes.data(), taken);
        bytes = bytes.subspan(taken);
        if (had + taken < kBlock) return;
        add_block(partial_.data());
    }
    for (; bytes.size() >= kBlock; bytes = bytes.subspan(kBlock)) add_block(bytes.data());
    if (!bytes.empty()) std::memcpy(partial_.data(), bytes.data(), bytes.size());
}

uint64_t StreamChecksum::value() const {
    StreamChecksum end = *this;
    if (const size_t had = total_ % kBlock; had != 0) {
        std::memset(end.partial_.data() + had, 0, kBlock - had);
        end.add_block(end.partial_.data());
    }
    uint64_t value = total_;
    for (const uint64_t lane : end.lanes_) {
        value = (value ^ lane) * 0x9e3779b97f4a7c15;
        value ^= value >> 32;
    }
    return value;
}

// ---- state

Result<TestDeviceState> TestDeviceState::create(uint64_t bytes, const std::string& file) {
    UniqueFd fd;
    if (file.empty()) {
        fd = UniqueFd(::memfd_create("test-device-state", MFD_CLOEXEC));
        if (!fd.valid()) return util::errno_error("memfd_create(test-device-state)");
    } else {
        MIG_TRY(fd, util::open_file(file, O_RDWR | O_CREAT | O_TRUNC), "state file");
    }
    MIG_CHECK(util::check_call(::ftruncate(fd.raw(), static_cast<off_t>(bytes)), "ftruncate"),
              "device state of {} bytes", bytes);
    MIG_TRY(auto memory, util::MappedRegion::map(fd.borrow(), 0, bytes, "device state"));
    return TestDeviceState(std::move(memory), bytes);
}

TestDeviceState::TestDeviceState(util::MappedRegion memory, uint64_t bytes)
    : memory_(std::move(memory)), changed_((bytes + kChunk - 1) / kChunk) {}

MutBytes TestDeviceState::chunk(uint64_t index) const {
    const uint64_t offset = index * kChunk;
    return bytes().subspan(offset, std::min(kChunk, size() - offset));
}

void TestDeviceState::touch(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    const uint64_t first = offset / kChunk;
    changed_.set_range(first, (offset + length - 1) / kChunk - first + 1);
}

void TestDeviceState::fill(uint32_t seed) {
    std::byte* const at = bytes().data();
    if (seed == 0) {
        std::memset(at, 0, size());
    } else {
        uint64_t x = seed * uint64_t{0x9e3779b97f4a7c15};
        for (uint64_t i = 0; i < size(); i += sizeof(x), x += 0xbf58476d1ce4e5b9) {
            util::store_le64(at + i, x ^ (x >> 29));
        }
    }
    changed_.set_all();
}

uint64_t TestDeviceState::digest() const {
    uint64_t h = 0xcbf29ce484222325;
    const std::byte* const at = bytes().data();
    for (uint64_t i = 0; i < size(); i += sizeof(h)) {
        h = (h ^ util::load_le64(at + i)) * 0x100000001b3;
    }
    return h;
}

// ---- saving

TestDeviceSaving::TestDeviceSaving(TestDeviceMemory memory, uint64_t session)
    : memory_(memory), session_(session) {}

size_t TestDeviceSaving::read(MutBytes into) {
    const size_t wanted = into.size();
    while (!into.empty()) {
        if (staged_left() == 0) {
            if (!produce(into)) break;
            continue;
        }
        const size_t taken = std::min<size_t>(staged_left(), into.size());
        std::memcpy(into.data(), staged_.data() + staged_taken_, taken);
        staged_taken_ += taken;
        into = into.subspan(taken);
    }
    return wanted - into.size();
}

void TestDeviceSaving::finish(std::vector<std::byte> registers) {
    registers_ = std::move(registers);
}

MutBytes TestDeviceSaving::room_for(MutBytes& into, size_t size) {
    staged_is_initial_ = step_ == Step::Header || first_pass_next_ < memory_.state.chunks();
    staged_taken_ = 0;
    if (into.size() < size) {
        staged_.resize(size);
        return staged_;
    }
    staged_.clear();
    const MutBytes room = into.first(size);
    into = into.subspan(size);
    return room;
}

bool TestDeviceSaving::produce(MutBytes& into) {
    MutBytes room;
    switch (step_) {
        case Step::Header: {
            const uint64_t first_pass = initial_bytes();
            room = room_for(into, kHeaderBytes);
            util::store_le32(room.data(), kMagic);
            util::store_le32(room.data() + 4, kVersion);
            util::store_le64(room.data() + 8, session_);
            util::store_le64(room.data() + 16, memory_.state.size());
            util::store_le64(room.data() + 24, first_pass);
            util::store_le64(room.data() + 32, 0);
            step_ = Step::Chunks;
            break;
        }
        case Step::Chunks:
            if (produce_chunk(into)) return true;
            if (!registers_) return false;
            step_ = Step::Registers;
            return true;
        case Step::Registers:
            room = room_for(into, kRecordBytes + registers_->size());
            put_record(room.data(), kRegisters, registers_->size(), 0);
            std::ranges::copy(*registers_, room.data() + kRecordBytes);
            step_ = Step::Trailer;
            break;
        case Step::Trailer:
            room = room_for(into, kRecordBytes + kTrailerBytes);
            put_record(room.data(), kTrailer, kTrailerBytes, checksum_.total_bytes());
            util::store_le64(room.data() + kRecordBytes, checksum_.value());
            step_ = Step::End;
            return true;  // not part of its own checksum
        case Step::End: return false;
    }
    checksum_.update(room);
    return true;
}

std::optional<uint64_t> TestDeviceSaving::next_chunk() const {
    if (first_pass_next_ < memory_.state.chunks()) return first_pass_next_;
    util::Bitmap& changed = memory_.state.changed();
    uint64_t chunk = changed.find_set(look_from_);
    if (chunk == changed.size()) chunk = changed.find_set(0);
    if (chunk == changed.size()) return std::nullopt;
    return chunk;
}

bool TestDeviceSaving::produce_chunk(MutBytes& into) {
    MutBytes room;
    {
        const std::lock_guard lock(memory_.mutex);
        const auto chunk = next_chunk();
        if (!chunk) return false;
        const MutBytes bytes = memory_.state.chunk(*chunk);
        room = room_for(into, kRecordBytes + bytes.size());
        put_record(room.data(), kExtent, bytes.size(), *chunk * TestDeviceState::kChunk);
        std::memcpy(room.data() + kRecordBytes, bytes.data(), bytes.size());
        memory_.state.changed().clear(*chunk);
        look_from_ = *chunk + 1;
        if (first_pass_next_ < memory_.state.chunks()) ++first_pass_next_;
    }
    checksum_.update(room);
    return true;
}

uint64_t TestDeviceSaving::record_bytes(uint64_t chunk) const {
    return kRecordBytes + memory_.state.chunk(chunk).size();
}

uint64_t TestDeviceSaving::initial_bytes() const {
    uint64_t bytes = staged_is_initial_ ? staged_left() : 0;
    if (step_ == Step::Header) bytes += kHeaderBytes;
    const uint64_t left = memory_.state.chunks() - first_pass_next_;
    // All chunks but the last one are of one size.
    if (left != 0) {
        bytes += (left - 1) * (kRecordBytes + TestDeviceState::kChunk) +
                 record_bytes(memory_.state.chunks() - 1);
    }
    return bytes;
}

uint64_t TestDeviceSaving::dirty_bytes() const {
    uint64_t bytes = staged_is_initial_ ? 0 : staged_left();
    const std::lock_guard lock(memory_.mutex);
    const util::Bitmap& changed = memory_.state.changed();
    for (uint64_t chunk = changed.find_set(0); chunk < first_pass_next_;
         chunk = changed.find_set(chunk + 1)) {
        bytes += record_bytes(chunk);
    }
    return bytes;
}

uint64_t TestDeviceSaving::remaining_bytes(uint64_t register_bytes) const {
    uint64_t bytes = initial_bytes() + dirty_bytes();
    if (step_ <= Step::Registers) bytes += kRecordBytes + register_bytes;
    if (step_ <= Step::Trailer) bytes += kRecordBytes + kTrailerBytes;
    return bytes;
}

// ---- loading

TestDeviceLoading::TestDeviceLoading(TestDeviceMemory memory, uint64_t register_bytes)
    : memory_(memory), loaded_(memory.state.chunks()), registers_(register_bytes) {}

void TestDeviceLoading::refuse(std::string reason) {
    if (!fault_) fault_ = fmt::format("{}, at byte {} of the image", reason, position_);
}

bool TestDeviceLoading::collect(ConstBytes& from, size_t size) {
    const ConstBytes piece = from.first(std::min(size - head_.size(), from.size()));
    head_.insert(head_.end(), piece.begin(), piece.end());
    from = from.subspan(piece.size());
    position_ += piece.size();
    return head_.size() == size;
}

Result<> TestDeviceLoading::write(ConstBytes from) {
    while (!from.empty() && !fault_) {
        switch (step_) {
            case Step::Header:
                if (collect(from, kHeaderBytes)) MIG_CHECK(take_header());
                break;
            case Step::Record:
                if (collect(from, kRecordBytes)) take_record_header();
                break;
            case Step::Payload: take_payload(from); break;
            case Step::End: refuse("bytes after the trailer"); break;
        }
    }
    return {};
}

Result<> TestDeviceLoading::take_header() {
    const std::byte* const at = head_.data();
    if (util::load_le32(at) != kMagic) {
        refuse("no image of a test device");
        return {};
    }
    const uint32_t version = util::load_le32(at + 4);
    const uint64_t state_bytes = util::load_le64(at + 16);
    if (version != kVersion || state_bytes != memory_.state.size()) {
        refuse("made for another device");
        return make_errno(EINVAL,
                          "the image is of version {} with {} bytes of state; this device wants "
                          "version {} with {}",
                          version, state_bytes, kVersion, memory_.state.size());
    }
    checksum_.update(head_);
    head_.clear();
    step_ = Step::Record;
    return {};
}

void TestDeviceLoading::take_record_header() {
    kind_ = util::load_le32(head_.data());
    const uint32_t length = util::load_le32(head_.data() + 4);
    const uint64_t offset = util::load_le64(head_.data() + 8);
    switch (kind_) {
        case kMagic: return refuse("a second image begins");
        case kExtent:
            chunk_ = offset / TestDeviceState::kChunk;
            if (offset % TestDeviceState::kChunk != 0 || chunk_ >= memory_.state.chunks() ||
                length != memory_.state.chunk(chunk_).size()) {
                return refuse(fmt::format("bad extent {:#x}+{}", offset, length));
            }
            payload_ = memory_.state.chunk(chunk_);
            break;
        case kRegisters:
            if (length != registers_.size()) {
                return refuse(
                    fmt::format("{} bytes of registers instead of {}", length, registers_.size()));
            }
            payload_ = registers_;
            break;
        case kTrailer:
            if (length != trailer_.size() || offset != position_ - kRecordBytes) {
                return refuse(fmt::format("the trailer counts {} bytes before it", offset));
            }
            payload_ = trailer_;
            break;
        default: return refuse(fmt::format("unknown record {}", kind_));
    }
    if (kind_ != kTrailer) checksum_.update(head_);
    head_.clear();
    step_ = Step::Payload;
}

void TestDeviceLoading::take_payload(ConstBytes& from) {
    const ConstBytes piece = from.first(std::min(payload_.size(), from.size()));
    {
        const std::lock_guard lock(memory_.mutex);
        std::memcpy(payload_.data(), piece.data(), piece.size());
    }
    if (kind_ != kTrailer) checksum_.update(piece);
    payload_ = payload_.subspan(piece.size());
    from = from.subspan(piece.size());
    position_ += piece.size();
    if (payload_.empty()) end_record();
}

void TestDeviceLoading::end_record() {
    step_ = kind_ == kTrailer ? Step::End : Step::Record;
    if (kind_ == kExtent) loaded_.set(chunk_);
    if (kind_ == kRegisters) registers_loaded_ = true;
    if (kind_ == kTrailer && util::load_le64(trailer_.data()) != checksum_.value()) {
        refuse("wrong checksum");
    }
}

Result<std::vector<std::byte>> TestDeviceLoading::finish() {
    if (!fault_ && step_ == Step::End && loaded_.count() == loaded_.size() && registers_loaded_) {
        return registers_;
    }
    return make_errno(EINVAL, "device image refused: {}",
                      fault_ ? *fault_
                             : fmt::format("incomplete, {} bytes, {} of {} extents", position_,
                                           loaded_.count(), loaded_.size()));
}

}  // namespace ferry::hw
