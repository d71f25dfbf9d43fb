// SPDX-License-Identifier: BSD-2-Clause
#include "system/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::system {

namespace {
constexpr size_t kMaxBlockName = 127;  // readers take the length byte as signed

Result<> check_block(const std::string& name, uint64_t size) {
    if (name.empty() || name.size() > kMaxBlockName) {
        return make_error(ErrorKind::InvalidArgument, "RAM block name '{}' must have 1 to {} bytes",
                          name, kMaxBlockName);
    }
    if (size == 0 || size % kPageSize != 0) {
        return make_error(ErrorKind::InvalidArgument,
                          "RAM block '{}': size {} is not a positive multiple of {}", name, size,
                          kPageSize);
    }
    return {};
}
}  // namespace

RamBlock::RamBlock(std::string name, util::MappedRegion mapping, UniqueFd fd, MutBytes memory)
    : name_(std::move(name)),
      mapping_(std::move(mapping)),
      fd_(std::move(fd)),
      memory_(memory),
      dirty_(memory.size() / kPageSize) {}

Result<std::unique_ptr<RamBlock>> RamBlock::create_memfd(std::string name, uint64_t size) {
    MIG_CHECK(check_block(name, size));
    UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC));
    if (!fd.valid()) return util::errno_error("memfd_create");
    MIG_CHECK(util::check_call(::ftruncate(fd.raw(), static_cast<off_t>(size)), "ftruncate(memfd)"),
              "RAM block '{}'", name);
    MIG_TRY(auto mapping, util::MappedRegion::map(fd.borrow(), 0, size, name));
    const MutBytes memory = mapping.bytes();
    return std::unique_ptr<RamBlock>(
        new RamBlock(std::move(name), std::move(mapping), std::move(fd), memory));
}

Result<std::unique_ptr<RamBlock>> RamBlock::create_file(std::string name, const std::string& path,
                                                        uint64_t size) {
    MIG_CHECK(check_block(name, size));
    MIG_TRY(UniqueFd fd, util::open_file(path, O_RDWR | O_CREAT), "RAM block '{}'", name);
    struct stat info{};
    MIG_CHECK(util::check_call(::fstat(fd.raw(), &info), "fstat"), "RAM file {}", path);
    const bool had_content = info.st_blocks != 0;
    if (static_cast<uint64_t>(info.st_size) < size) {
        MIG_CHECK(util::check_call(::ftruncate(fd.raw(), static_cast<off_t>(size)), "ftruncate"),
                  "RAM file {}", path);
    }
    MIG_TRY(auto mapping, util::MappedRegion::map(fd.borrow(), 0, size, path));
    const MutBytes memory = mapping.bytes();
    std::unique_ptr<RamBlock> block(
        new RamBlock(std::move(name), std::move(mapping), std::move(fd), memory));
    if (had_content) block->mark_used();
    return block;
}

std::unique_ptr<RamBlock> RamBlock::wrap(std::string name, MutBytes memory) {
    std::unique_ptr<RamBlock> block(new RamBlock(std::move(name), {}, {}, memory));
    block->mark_used();  // the embedder's memory: nobody promised zeros
    return block;
}

void RamBlock::mark_dirty(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    mark_used();
    const uint64_t first = offset / kPageSize;
    const uint64_t last = (offset + length - 1) / kPageSize;
    dirty_.set_range(first, last - first + 1);
}

Result<RamBlock*> GuestMemory::add_block(std::unique_ptr<RamBlock> block) {
    MIG_CHECK(check_block(block->name(), block->size()));
    if (find_block(block->name()) != nullptr) {
        return make_error(ErrorKind::InvalidArgument, "RAM block '{}' exists already",
                          block->name());
    }
    blocks_.push_back(std::move(block));
    return blocks_.back().get();
}

Result<> GuestMemory::map(RamBlock& block, Gpa gpa, uint64_t offset, uint64_t length) {
    if (offset > block.size() || length > block.size() - offset || gpa + length < gpa) {
        return make_error(ErrorKind::InvalidArgument, "RAM block '{}': bad mapping at {:#x}",
                          block.name(), gpa);
    }
    for (const RamMapping& other : mappings_) {
        if (gpa < other.gpa + other.length && other.gpa < gpa + length) {
            return make_error(ErrorKind::InvalidArgument, "RAM block '{}' overlaps '{}' at {:#x}",
                              block.name(), other.block->name(), gpa);
        }
    }
    const auto at = std::ranges::upper_bound(mappings_, gpa, {}, &RamMapping::gpa);
    mappings_.insert(at, RamMapping{&block, gpa, offset, length});
    return {};
}

RamBlock* GuestMemory::find_block(std::string_view name) const {
    for (const auto& block : blocks_) {
        if (block->name() == name) return block.get();
    }
    return nullptr;
}

GuestMemory::Piece GuestMemory::lookup(Gpa gpa, uint64_t length) const {
    const auto after = std::ranges::upper_bound(mappings_, gpa, {}, &RamMapping::gpa);
    if (after == mappings_.begin()) return {};
    const RamMapping& mapping = *std::prev(after);
    const uint64_t into = gpa - mapping.gpa;
    if (into >= mapping.length) return {};
    const uint64_t offset = mapping.offset + into;
    return {mapping.block, offset,
            mapping.block->host().subspan(offset, std::min(length, mapping.length - into))};
}

Result<> GuestMemory::read(Gpa gpa, MutBytes out) const {
    while (!out.empty()) {
        const Piece piece = lookup(gpa, out.size());
        if (piece.bytes.empty()) {
            return make_error(ErrorKind::InvalidArgument, "no RAM at {:#x}", gpa);
        }
        std::memcpy(out.data(), piece.bytes.data(), piece.bytes.size());
        gpa += piece.bytes.size();
        out = out.subspan(piece.bytes.size());
    }
    return {};
}

Result<> GuestMemory::write(Gpa gpa, ConstBytes in) {
    while (!in.empty()) {
        const Piece piece = lookup(gpa, in.size());
        if (piece.bytes.empty()) {
            return make_error(ErrorKind::InvalidArgument, "no RAM at {:#x}", gpa);
        }
        std::memcpy(piece.bytes.data(), in.data(), piece.bytes.size());
        piece.block->mark_dirty(piece.offset, piece.bytes.size());
        gpa += piece.bytes.size();
        in = in.subspan(piece.bytes.size());
    }
    return {};
}

util::Registration GuestMemory::add_tracker(DirtyTracker& tracker) {
    trackers_.push_back(&tracker);
    return util::Registration([this, &tracker] { std::erase(trackers_, &tracker); });
}

util::Registration DirtyLogUse::claim() {
    user_ = ++last_claim_;
    return util::Registration([this, mine = user_] { release(mine); });
}

void DirtyLogUse::release(uint64_t claim) {
    const std::lock_guard lock(mutex_);
    if (user_ != claim) return;  // it gave way
    user_ = 0;
    give_way_ = nullptr;
}

std::optional<util::Registration> DirtyLogUse::observe(std::function<void()> give_way) {
    const std::lock_guard lock(mutex_);
    if (user_ != 0) return std::nullopt;
    give_way_ = std::move(give_way);
    return claim();
}

util::Registration DirtyLogUse::take() {
    const std::lock_guard lock(mutex_);
    if (const auto give_way = std::exchange(give_way_, nullptr)) give_way();
    return claim();
}

}  // namespace ferry::system
