// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/ram-body.h"

#include <algorithm>
#include <array>
#include <bit>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::stream_tool {

namespace {

struct Refused {
    uint64_t flag;
    std::string_view name;
    std::string_view why;
};
constexpr std::array kRefused = {
    Refused{ram::kFull, "FULL", "obsolete"},
    Refused{ram::kHook, "HOOK", "only RDMA has it"},
    Refused{ram::kCompressPage, "COMPRESS_PAGE", "compressed pages were removed with QEMU 9.1"},
};

// --- XBZRLE: runs of unchanged and of changed bytes

constexpr uint8_t kXbzrleEncoding = 1;

class Runs {
 public:
    explicit Runs(ConstBytes in) : in_(in) {}

    // What is wrong with them, or nothing.
    std::string_view judge(uint64_t page_size) {
        uint64_t at = 0;
        for (bool first = true; !in_.empty(); first = false) {
            const auto skip = number();
            if (!skip) return "a run's length is cut off or too long";
            if (*skip == 0 && !first) return "an unchanged run is empty";
            const auto copy = number();
            if (!copy) return "a run's length is cut off or too long";
            if (*copy == 0) return "a changed run is empty";
            if (*copy > in_.size()) return "a changed run is cut off";
            in_ = in_.subspan(*copy);
            at += *skip + *copy;
            if (at > page_size) return "its runs are longer than a page";
        }
        return {};
    }

 private:
    std::optional<uint32_t> number() {
        const auto low = byte();
        if (!low || *low < 0x80) return low;
        const auto high = byte();
        if (!high || *high >= 0x80) return std::nullopt;
        return (*low & 0x7f) | *high << 7;
    }
    std::optional<uint32_t> byte() {
        if (in_.empty()) return std::nullopt;
        const auto value = static_cast<uint32_t>(in_[0]);
        in_ = in_.subspan(1);
        return value;
    }
    ConstBytes in_;
};

}  // namespace

void PageCounts::add(const PageCounts& other) {
    normal += other.normal;
    zero += other.zero;
    xbzrle += other.xbzrle;
    bytes += other.bytes;
}

void PageCounts::describe(Node& node) const {
    node.number("normal_pages", normal).number("zero_pages", zero);
    if (xbzrle != 0) node.number("xbzrle_pages", xbzrle);
    node.number("bytes", bytes);
}

Result<> RamBodies::read(const BodyOf& section, Node& node) {
    if (context_.ram_layout == Context::Layout::MappedRam) {
        context_.findings.problem(context_.in.position(), "mapped-ram",
                                  "RAM lies at fixed offsets of the file (capability mapped-ram); "
                                  "such a stream is not read any further");
        return Error(ErrorKind::Unsupported, "mapped-ram");
    }
    if (section.kind == SectionKind::Full) {
        context_.findings.problem(context_.in.position(), "ram-record",
                                  "RAM has no section of this kind");
    }
    for (;;) {
        auto next = read_record(section, node);
        if (next && *next == Next::Record && !context_.findings.too_many()) continue;
        summarise(node);
        if (!next) return std::move(next).error();
        return {};
    }
}

void RamBodies::summarise(Node& node) {
    for (const size_t index : touched_) {
        Block& block = blocks_[index];
        Node summary{"block"};
        summary.text("name", block.name);
        block.section.describe(summary);
        context_.add(node, std::move(summary));
        block.total.add(block.section);
        block.section = {};
    }
    touched_.clear();
}

Result<RamBodies::Next> RamBodies::read_record(const BodyOf& section, Node& node) {
    MIG_TRY(const bool early_footer, context_.at_footer(section.id));
    if (early_footer) {
        context_.findings.problem(context_.in.position(), "ram-eos",
                                  "the footer comes without an EOS record before it");
        return Next::Footer;
    }
    Record record{context_.in.position()};
    MIG_TRY(const uint64_t word, context_.in.be64());
    record.flags = word & (context_.page_size - 1);
    record.value = word & ~(context_.page_size - 1);
    switch (record.flags & ~ram::kContinue) {
        case ram::kEos:
            if (word != ram::kEos) MIG_CHECK(refuse(record));
            return Next::Footer;
        case ram::kMemSize:
            if (record.flags != ram::kMemSize) MIG_CHECK(refuse(record));
            MIG_CHECK(read_list(section, record, node));
            return Next::Record;
        case ram::kMultifdFlush:
            if (word != ram::kMultifdFlush) MIG_CHECK(refuse(record));
            context_.add(node, {"multifd-flush", record.at, sizeof(word)});
            return Next::Record;
        case ram::kZero:
        case ram::kPage:
        case ram::kXbzrle: MIG_CHECK(read_page(record, node)); return Next::Record;
        default: MIG_CHECK(refuse(record)); return Next::Record;
    }
}

Result<> RamBodies::refuse(const Record& record) {
    const uint64_t what = record.flags & ~ram::kContinue;
    const auto known = std::ranges::find(kRefused, what, &Refused::flag);
    if (known != kRefused.end()) {
        return context_.findings.broken(record.at, "ram-record", "record {} ({:#x}): {}",
                                        known->name, known->flag, known->why);
    }
    return context_.findings.broken(record.at, "ram-record",
                                    "record {:#x}: its flags {:#x} mean nothing",
                                    record.value | record.flags, record.flags);
}

// --- The list of blocks

Result<> RamBodies::read_list(const BodyOf& section, const Record& record, Node& node) {
    if (section.kind != SectionKind::Start) {
        context_.findings.problem(record.at, "ram-blocks",
                                  "the list of blocks comes outside of START");
    }
    if (list_at_) {
        context_.findings.problem(record.at, "ram-blocks", "the list of blocks comes twice");
    }
    list_at_ = record.at;
    Node list{"block-list", record.at};
    list.number("total", record.value);
    Result<> outcome;
    for (uint64_t left = record.value; left != 0;) {
        const auto length = read_list_entry(record, left, list);
        if (!length) {
            outcome = length.error();
            break;
        }
        left -= *length;
    }
    list.size = context_.in.position() - record.at;
    context_.add(node, std::move(list));
    return outcome;
}

Result<uint64_t> RamBodies::read_list_entry(const Record& record, uint64_t left, Node& list) {
    Node entry{"block", context_.in.position()};
    MIG_TRY(const std::string name, context_.in.str8());
    MIG_TRY(const uint64_t length, context_.in.be64());
    entry.text("name", name).number("length", length);
    if (name.empty()) {
        return context_.findings.broken(entry.offset, "ram-blocks", "a block has no name");
    }
    if (length > left || length == 0) {
        return context_.findings.broken(
            entry.offset, "ram-blocks",
            "block '{}' of {} bytes does not fit into the total of {} bytes, {} are left",
            printable(name), length, record.value, left);
    }
    if (length % context_.page_size != 0) {
        context_.findings.problem(entry.offset, "ram-blocks",
                                  "block '{}': {} bytes are no multiple of the page size {}",
                                  printable(name), length, context_.page_size);
    }
    MIG_CHECK(read_block_page_size(entry));
    if (context_.ram_layout == Context::Layout::IgnoreShared) {
        MIG_TRY(const uint64_t address, context_.in.be64());
        entry.number("address", address);
    }
    entry.size = context_.in.position() - entry.offset;
    const uint64_t at = entry.offset;
    context_.add(list, std::move(entry));
    if (index_.contains(name)) {
        context_.findings.problem(at, "ram-blocks", "block '{}' is listed twice", printable(name));
        return length;
    }
    if (blocks_.size() == kMaxBlocks) {
        return context_.findings.broken(at, "limit", "more than {} blocks", kMaxBlocks);
    }
    index_.emplace(name, blocks_.size());
    blocks_.push_back({name, length});
    return length;
}

// Once post-copy is announced, blocks of large pages have their page size behind the length. What
// may stand there otherwise never begins with a zero byte (a name), has a bit below the page size
// (a record), or is an address, which comes later.
Result<> RamBodies::read_block_page_size(Node& entry) {
    if (context_.postcopy == Context::Postcopy::No) return {};
    MIG_TRY(const ConstBytes next, context_.in.peek(sizeof(uint64_t)));
    if (next.size() < sizeof(uint64_t)) return {};
    const uint64_t value = util::load_be64(next.data());
    if (!std::has_single_bit(value) || value <= context_.page_size) return {};
    if (next[0] != std::byte{0}) return {};
    entry.number("page_size", value);
    return context_.in.skip(sizeof(uint64_t));
}

// --- Pages

RamBodies::Block* RamBodies::find(const std::string& name) {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &blocks_[found->second];
}

Result<RamBodies::Block*> RamBodies::select_block(const Record& record) {
    if ((record.flags & ram::kContinue) != 0) {
        if (!current_) {
            return context_.findings.broken(record.at, "ram-page",
                                            "CONTINUE before any block was named");
        }
        return &blocks_[*current_];
    }
    MIG_TRY(const std::string name, context_.in.str8());
    if (name.empty()) {
        return context_.findings.broken(record.at, "ram-page", "its block has no name");
    }
    if (find(name) == nullptr) {
        context_.findings.problem(record.at, "ram-page", "block '{}' was not announced",
                                  printable(name));
        if (blocks_.size() == kMaxBlocks) {
            return context_.findings.broken(record.at, "limit", "more than {} blocks", kMaxBlocks);
        }
        // Its length is unknown: nothing lies outside.
        index_.emplace(name, blocks_.size());
        blocks_.push_back({name, UINT64_MAX});
    }
    Block* const block = find(name);
    current_ = static_cast<size_t>(block - blocks_.data());
    return block;
}

Result<> RamBodies::read_page(const Record& record, Node& node) {
    MIG_TRY(Block* const block, select_block(record));
    if (record.value >= block->length) {
        context_.findings.problem(record.at, "ram-page",
                                  "offset {:#x} lies outside of block '{}' of {} bytes",
                                  record.value, printable(block->name), block->length);
    }
    PageCounts counts;
    std::string_view content = "normal";
    if ((record.flags & ram::kPage) != 0) {
        MIG_CHECK(context_.in.skip(context_.page_size));
        counts.normal = 1;
    } else if ((record.flags & ram::kZero) != 0) {
        MIG_CHECK(read_zero(record, counts));
        content = "zero";
    } else {
        MIG_CHECK(read_xbzrle(record));
        counts.xbzrle = 1;
        content = "xbzrle";
    }
    counts.bytes = context_.in.position() - record.at;
    if (block->section.pages() == 0) touched_.push_back(*current_);
    block->section.add(counts);
    if (context_.detail == Detail::Pages) {
        Node page{"page", record.at, counts.bytes};
        page.text("block", block->name).number("address", record.value).text("content", content);
        context_.add(node, std::move(page));
    }
    return {};
}

Result<> RamBodies::read_zero(const Record& record, PageCounts& counts) {
    MIG_TRY(const uint8_t fill, context_.in.u8());
    if (fill != 0) {
        context_.findings.problem(record.at, "ram-page", "a page is filled with {:#x}, not zero",
                                  fill);
    }
    counts.zero = 1;
    return {};
}

Result<> RamBodies::read_xbzrle(const Record& record) {
    MIG_TRY(const uint8_t encoding, context_.in.u8());
    MIG_TRY(const uint16_t length, context_.in.be16());
    if (encoding != kXbzrleEncoding || length > context_.page_size) {
        return context_.findings.broken(record.at, "ram-page",
                                        "XBZRLE: encoding {} of {} bytes means nothing", encoding,
                                        length);
    }
    delta_.resize(length);
    MIG_CHECK(context_.in.bytes(delta_));
    if (const auto wrong = Runs(delta_).judge(context_.page_size); !wrong.empty()) {
        context_.findings.problem(record.at, "ram-page", "XBZRLE: {}", wrong);
    }
    return {};
}

}  // namespace ferry::stream_tool
